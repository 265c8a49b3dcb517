"""docs/failures.md is complete, and what it says is tested: its rows name tests that are there."""

import re
from pathlib import Path

import pytest
from environment import ROOT

PAGE = (ROOT / "docs" / "failures.md").read_text()
TESTS = ROOT / "tests"
TABLE = PAGE.split("## When a job fails")[0]
ROWS = re.findall(r"^\| (?!fault|-)(.*?) \|.*\| (.*?) \|$", TABLE, re.M)
# Every fault that one machine or a network can have; those of S3 and of provisioning have pages of their own.
FAULTS = {*range(1, 31), *range(34, 38), *range(39, 48), 50}


def _tested(path: Path) -> set[int]:
    """The faults that a file's tests bear the numbers of."""
    text = path.read_text()
    heads = re.findall(r'\A"""(.*?)"""', text, re.S) + re.findall(r"^# (F\d+:.*)$", text, re.M)
    names = re.findall(r"def test_((?:f\d+_)+)", text)
    return {int(number) for where in (*names, *heads) for number in re.findall(r"[fF](\d+)", where)}


@pytest.fixture(scope="module")
def tested() -> set[int]:
    return set[int]().union(*(_tested(path) for path in TESTS.rglob("test_*.py")))


def test_every_fault_is_there() -> None:
    named = {int(number) for _, tests in ROWS for number in re.findall(r"\bF(\d+)\b", tests)}
    assert named >= FAULTS, sorted(FAULTS - named)


@pytest.mark.parametrize(("fault", "tests"), ROWS, ids=[fault[:60] for fault, _ in ROWS])
def test_a_row_names_tests_that_are_there(fault: str, tests: str, tested: set[int]) -> None:
    paths = [TESTS / path for path in re.findall(r"`(\S+)`", tests)]
    numbers = {int(number) for number in re.findall(r"\bF(\d+)\b", tests)}
    assert paths or numbers, f"no test is named for: {fault}"
    assert all(path.exists() for path in paths)
    assert numbers <= tested
