"""The commands of the operator's manual, but for its set-up, which tests/test_operations.py tries."""

import shlex
from collections.abc import Iterable

from environment import ROOT

_EXAMPLES = {"ssh_from=203.0.113.7/32": "ssh_from=172.31.0.0/16"}  # what stands there, and what the tests say
_OWN = ("worker=i-", "inventory/hosts.yml")  # what each operator says for themselves


def manual() -> list[list[str]]:
    """The words of each."""
    _, _, text = (ROOT / "docs/operations.md").read_text().partition("\n## ")
    return [shlex.split(line[2:]) for line in text.splitlines() if line.startswith("$ ")]


def is_of_other_hosts(command: list[str]) -> bool:
    """Whether a command is for hosts that are not on EC2."""
    return "inventory/hosts.yml" in command


def was_run(command: list[str], run: Iterable[tuple[str, ...]]) -> bool:
    """Whether a command of the manual is among those that were run, perhaps with more words."""
    words = {_EXAMPLES.get(word, word) for word in command if not word.startswith(_OWN)}
    return any(words <= set(each) for each in run)
