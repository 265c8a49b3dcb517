"""Counters: group -> name -> value."""

from zmqmr.messages import Counters

LIMIT = 2**63 - 1  # what Hadoop's counters can hold, and every message; a counter stops there


def count(counters: Counters, group: str, name: str, amount: int) -> None:
    """Add to a counter, which begins at 0."""
    names = counters.setdefault(group, {})
    names[name] = max(-LIMIT, min(LIMIT, names.get(name, 0) + amount))


def count_all(counters: Counters, more: Counters) -> None:
    """Add all of `more`."""
    for group, names in more.items():
        for name, amount in names.items():
            count(counters, group, name, amount)
