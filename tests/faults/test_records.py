"""Rows F24 and F27: records that fail, crash or devour memory; and what a user can do with the failure."""

import subprocess
import sys
from pathlib import Path

import pytest
from differential.harness import Result, run_stock, run_zmqmr

GOOD = [f"good line {number}\n" for number in range(40)]
BAD = ["raise this one\n", "crash on this one\n"]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Good lines with a bad one after the tenth and one after the thirtieth."""
    path = tmp_path / "mixed.txt"
    path.write_text("".join([*GOOD[:10], BAD[0], *GOOD[10:30], BAD[1], *GOOD[30:]]))
    return path


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.txt"
    path.write_text("".join(GOOD))
    return path


def _run(inputs: Path, output: Path, *args: str, **environ: str) -> Result:
    return run_zmqmr("bad_records", args, [inputs], output, environ=environ)


def test_f24_exactly_the_bad_records_are_left_out_counted_and_kept(
    mixed: Path, good: Path, tmp_path: Path
) -> None:
    ours = _run(mixed, tmp_path / "out", "--skip-bad-records", "2")
    assert ours.rc == 0, ours.stderr
    assert ours.lines == run_stock("bad_records", inputs=[good]).lines
    assert "skipped_records=2" in ours.stderr
    kept = [path.read_text() for path in (tmp_path / "out" / "_skipped").iterdir()]
    assert kept == ["".join(BAD)]
    for bad in BAD:
        place = f"{mixed} at byte {mixed.read_text().index(bad)}"
        assert ours.stderr.count(f"left out: the record of {place}, which failed twice") == 1
    assert f"2 records left out, kept in {tmp_path}/out/_skipped" in ours.stderr


def test_f24_more_bad_records_than_allowed_fail_the_job(mixed: Path, tmp_path: Path) -> None:
    ours = _run(mixed, tmp_path / "out", "--skip-bad-records", "1")
    assert ours.rc == 1
    assert not (tmp_path / "out").exists()
    assert "1 record was left out before; --skip-bad-records 1 allows no more" in ours.stderr


def test_f24_a_record_that_crashes_its_task_is_named(tmp_path: Path) -> None:
    path = tmp_path / "crash.txt"
    path.write_text("".join([*GOOD[:3], BAD[1], *GOOD[3:]]))
    ours = _run(path, tmp_path / "out")
    assert ours.rc == 1
    offset = len("".join(GOOD[:3]))
    assert f"{path} at byte {offset}" in ours.stderr
    assert "SIGSEGV" in ours.stderr
    assert "record: 'crash on this one'" in ours.stderr


def test_f27_a_task_that_needs_more_memory_than_it_may_have_fails_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "devour.txt"
    path.write_text("devour it all\n")
    ours = _run(path, tmp_path / "out", ZMQMR_TASK_MEMORY_BYTES=str(2 * 1024**3))
    assert ours.rc == 1
    assert "the task exceeded its memory (ZMQMR_TASK_MEMORY_BYTES" in ours.stderr
    assert f"{path} at byte 0" in ours.stderr


def _replay(stderr: str) -> "subprocess.CompletedProcess[str]":
    (path,) = {line.split("zmqmr replay ")[1] for line in stderr.splitlines() if "run it alone:" in line}
    command = [sys.executable, "-m", "zmqmr", "replay", path]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_failure_can_be_replayed_alone_with_stock_mrjob(mixed: Path, tmp_path: Path) -> None:
    failed = _run(mixed, tmp_path / "out")
    replayed = _replay(failed.stderr)
    assert replayed.returncode == 1
    assert "ValueError: cannot take raise this one" in replayed.stderr
    assert replayed.stdout.endswith('"good"\t1\n"line"\t1\n"9"\t1\n')  # of the record before it, and no more


def test_a_failure_of_a_reducer_can_be_replayed_too(tmp_path: Path) -> None:
    job = tmp_path / "job.py"
    job.write_text(
        "from mrjob.job import MRJob\n"
        "class Job(MRJob):\n"
        "    def mapper(self, _, line):\n"
        "        yield line, 1\n"
        "    def reducer(self, key, values):\n"
        "        if key == 'b':\n"
        "            raise KeyError(key)\n"
        "        yield key, sum(values)\n"
        "Job.run()\n"
    )
    lines = tmp_path / "lines.txt"
    lines.write_text("c\na\nb\na\n")
    failed = run_zmqmr(job, inputs=[lines], output=tmp_path / "out")
    replayed = _replay(failed.stderr)
    assert replayed.stdout == '"a"\t2\n'
    assert "KeyError: 'b'" in replayed.stderr


def test_replay_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    other = tmp_path / "other.tar"
    other.write_bytes(b"something else")
    for path in (other, tmp_path / "missing.tar"):
        command = [sys.executable, "-m", "zmqmr", "replay", str(path)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 2
        assert str(path) in ended.stderr and "Traceback" not in ended.stderr
