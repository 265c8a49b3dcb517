"""The measurement of the coordinator's limits runs, whatever its figures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCALE = Path(__file__).resolve().parent.parent / "scripts" / "scale.py"


def _measure(*cell: int, seconds: float = 100) -> str:
    command = [sys.executable, str(SCALE), f"--seconds={seconds}", "--cell", *map(str, cell)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120).stdout


@pytest.mark.parametrize("partitions", [0, 4])
def test_a_job_of_simulated_workers_comes_to_its_end(partitions: int) -> None:
    *_, row = _measure(10, 500, partitions).strip().splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["10", "500", str(partitions or "-")]
    assert len(cells) == 8 and all(cells), row


def test_a_row_that_takes_too_long_is_given_up_and_says_so() -> None:
    assert "not done in the time given" in _measure(10, 100_000, 0, seconds=0.2)


def test_all_that_was_measured_can_be_had() -> None:
    command = [sys.executable, str(SCALE), "--json", "--cell", "2", "40", "3"]
    row = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120).stdout)
    assert row["state"] == "succeeded"
    assert row["calls"]["core AttemptDone"] >= 43  # a straggler has a second attempt
