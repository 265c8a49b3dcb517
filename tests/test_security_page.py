"""SECURITY.md names for each threat tests that are there and bear its number."""

import re
from pathlib import Path

import pytest
from environment import ROOT

PAGE = (ROOT / "SECURITY.md").read_text()
TESTS = ROOT / "tests"
ROWS = re.findall(r"^\| T(\d+) \| (.*?) \|.*\| (.*?) \|$", PAGE, re.M)
THREATS = {*range(1, 10), *range(12, 20)}  # those of AWS accounts and of packages have pages of their own
ABOUT_ALL = {"test_layers.py"}  # holds rules of the code, not one threat


def _numbers(path: Path) -> set[int]:
    """The threats whose numbers a file bears: in its name, in those of its tests, in its first words, or at a
    line."""
    text = path.read_text()
    head = re.match(r'\s*"""(.*?)"""', text, re.S)
    words = [
        path.name,
        head[1] if head else "",
        *re.findall(r"def (test_\w+)", text),
        *re.findall(r"# .*", text),
    ]
    return {
        int(number)
        for each in words
        for number in re.findall(r"(?<![A-Za-z0-9])[tT](\d+)(?!\d)", each.replace("_", " "))
    }


def test_every_threat_is_there_once() -> None:
    assert sorted(int(number) for number, _, _ in ROWS) == sorted(THREATS)


@pytest.mark.parametrize(("number", "threat", "tests"), ROWS, ids=[f"T{row[0]}" for row in ROWS])
def test_a_threat_names_tests_that_bear_its_number(number: str, threat: str, tests: str) -> None:
    paths = re.findall(r"`(\S+)`", tests)
    assert paths, f"no test is named for: {threat}"
    for path in paths:
        assert path in ABOUT_ALL or int(number) in _numbers(TESTS / path), f"{path} has no test of T{number}"
