"""Counters: group -> name -> value."""

from zmqmr.messages import Counters

NAME_CHARACTERS = 1000  # of a group or a counter; Hadoop cuts names too, at 128 and 64
LIMIT = 2**63 - 1  # what Hadoop's counters can hold, and every message; a counter stops there


def count(counters: Counters, group: str, name: str, amount: int) -> None:
    """Add to a counter, which begins at 0."""
    names = counters.setdefault(group, {})
    names[name] = max(-LIMIT, min(LIMIT, names.get(name, 0) + amount))


def count_said(counters: Counters, group: bytes, name: bytes, amount: int, most: int) -> None:
    """Add to a counter that a task names; names are cut. A job with more than `most` different ones fails, so
    that no other is begun once there are more, however many the task names."""
    group_, name_ = (each.decode("utf-8", "replace")[:NAME_CHARACTERS] for each in (group, name))
    if name_ in counters.get(group_, ()) or sum(map(len, counters.values())) <= most:
        count(counters, group_, name_, amount)


def count_all(counters: Counters, more: Counters) -> None:
    """Add all of `more`."""
    for group, names in more.items():
        for name, amount in names.items():
            count(counters, group, name, amount)
