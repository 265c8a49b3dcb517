"""What ended jobs left on a worker's drive goes by age and size, and never while its job runs."""

import os
import time
from pathlib import Path

import pytest

from zmqmr.worker import ended_jobs
from zmqmr.worker.ended_jobs import EndedJobs

DAY = 86400.0


def left(drive: Path, job: str, days: float, size: int = 1000) -> None:
    """What a job has left that ended so many days ago."""
    spools = drive / job / "spools"
    spools.mkdir(parents=True)
    (spools / "a.spool").write_bytes(bytes(size))
    when = time.time() - days * DAY
    os.utime(spools, (when, when))


def names(drive: Path) -> set[str]:
    return {path.name for path in drive.iterdir()}


@pytest.fixture(autouse=True)
def a_drive_with_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_jobs, "FREE_SHARE", 0.0)


def test_what_is_too_old_goes_on_each_drive(tmp_path: Path) -> None:
    drives = [tmp_path / "one", tmp_path / "two"]
    for drive in drives:
        left(drive, "old", days=8)
        left(drive, "new", days=6)
        left(drive, "runs", days=9)
    EndedJobs([str(drive) for drive in drives], days=7, most_bytes=10**9).sweep({"runs"})
    assert [names(drive) for drive in drives] == [{"new", "runs"}] * 2


def test_of_too_much_the_oldest_goes(tmp_path: Path) -> None:
    for days in (1, 2, 3):
        left(tmp_path, f"of-day-{days}", days)
    left(tmp_path, "runs", 4)
    sweeper = EndedJobs([str(tmp_path)], days=7, most_bytes=2500)
    sweeper.sweep({"runs"})
    assert names(tmp_path) == {"of-day-1", "of-day-2", "runs"}
    left(tmp_path, "of-today", 0)
    sweeper.sweep({"runs"})
    assert names(tmp_path) == {"of-today", "of-day-1", "runs"}


def test_a_drive_that_is_short_of_room_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left(tmp_path, "ended", 1)
    left(tmp_path, "runs", 1)
    monkeypatch.setattr(ended_jobs, "FREE_SHARE", 1.0)
    EndedJobs([str(tmp_path), str(tmp_path / "none")], days=7, most_bytes=10**9).sweep({"runs"})
    assert names(tmp_path) == {"runs"}
