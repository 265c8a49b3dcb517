"""`zmqmr drill`: every fault strikes a job, and what comes of it is said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from differential.harness import JOBS, plain_environ
from faults.nemesis import MANY_TASKS, some_words

from zmqmr.cli.faults import all_faults
from zmqmr.cli.small_drive import SmallDrive

FAULTS = [fault.name for fault in all_faults(lambda target, draw: False)]
SPOOL = "flip a bit in a spool"
RANDOM = """
import random
from mrjob.job import MRJob


class Job(MRJob):
    def mapper(self, _, line):
        yield line, random.SystemRandom().random()


if __name__ == "__main__":
    Job.run()
"""


def _drill(*args: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zmqmr", "drill", *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, env=plain_environ(settings), timeout=300, check=False
    )


def _said(ended: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What was said of each fault."""
    lines = ended.stdout.splitlines()
    return {fault: line[len(fault) :].strip() for fault in FAULTS for line in lines if line.startswith(fault)}


def test_drill_runs_a_job_under_every_fault_and_finds_the_same_output(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(some_words(320))
    # Other tests of this process leave records of the same job.
    own = {"XDG_STATE_HOME": str(tmp_path / "state")}
    ended = _drill("--seed", "8", JOBS / "noted_words.py", "--pause", "0.006", text, **MANY_TASKS, **own)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith("seed 8\n")
    assert ended.stdout.endswith("every output is the same\n")
    said = _said(ended)
    assert list(said) == FAULTS
    struck = [fault for fault in FAULTS if said[fault].startswith("after")]
    assert all(said[fault].endswith(": same output") for fault in struck), ended.stdout
    unlucky = [said[fault] for fault in FAULTS if fault not in struck]
    assert all(why.startswith(("had no chance", "not tried")) for why in unlucky), ended.stdout
    assert len(struck) >= len(FAULTS) - 3, ended.stdout
    assert ended.stderr == "", "what the runs say of the faults is not the user's"
    command = [sys.executable, "-m", "zmqmr", "jobs", "--json"]
    jobs = subprocess.run(command, capture_output=True, text=True, env=plain_environ(own), timeout=60)
    assert jobs.returncode == 0 and "noted_words" not in jobs.stdout


def test_drill_says_so_when_the_output_differs_and_when_a_job_is_too_short_to_be_hurt(tmp_path: Path) -> None:
    text, job = tmp_path / "text.txt", tmp_path / "job.py"
    text.write_text("one\ntwo\n")
    job.write_text(RANDOM)
    ended = _drill("--fault", SPOOL, "--fault", "kill-an-attempt", job, text)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    said = _said(ended)
    assert list(said) == ["kill an attempt", SPOOL]
    assert all("THE OUTPUT DIFFERS" in each for each in said.values()), ended.stdout
    assert ended.stdout.endswith("2 of the runs went wrong\n")

    job.write_text(RANDOM.replace("random.SystemRandom().random()", "1"))
    ended = _drill("--fault", SPOOL, job, text)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert _said(ended) == {SPOOL: "had no chance: same output"}, "a job without a shuffle has no spool"
    assert "1 of 1 faults had no chance to strike" in ended.stdout


def test_drill_refuses_a_job_that_fails_alone(tmp_path: Path) -> None:
    job = tmp_path / "job.py"
    job.write_text(RANDOM)
    ended = _drill(job, tmp_path / "missing.txt")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "fails without any fault (exit status 2): " in line and "missing.txt" in line


def test_drill_says_that_there_is_no_job_file(tmp_path: Path) -> None:
    ended = _drill(tmp_path / "missing.py", tmp_path / "missing.txt")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"zmqmr: there is no job file {tmp_path}/missing.py")


def test_a_small_drive_is_seen_by_its_run_alone_is_filled_and_has_room_again(tmp_path: Path) -> None:
    drive = SmallDrive(str(tmp_path))
    if refusal := drive.refusal():
        pytest.skip(f"needs root, or user namespaces: {refusal}")
    script = 'cd "$0"; echo > begun; until [ -e full ]; do :; done 2>/dev/null; cat'
    process = subprocess.Popen(drive.command(["sh", "-c", script, str(tmp_path)]), stdin=subprocess.PIPE)
    inside = Path(f"/proc/{process.pid}/root{tmp_path}")
    try:
        while not (inside / "begun").exists():
            assert process.poll() is None
        assert drive._take_room(process.pid)
        with pytest.raises(OSError, match="No space left"):
            (inside / "more").write_bytes(bytes(10_000))
        assert drive.fill(process.pid)
        (inside / "more").write_bytes(bytes(10_000))
        assert os.listdir(tmp_path) == []
    finally:
        process.kill()
        process.communicate()


def test_a_small_drive_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not SmallDrive(str(tmp_path)).room_for(1 << 60)
    assert "missing" in SmallDrive(str(tmp_path / "missing")).refusal()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert SmallDrive(str(tmp_path)).refusal() == "no program 'unshare' on PATH"
