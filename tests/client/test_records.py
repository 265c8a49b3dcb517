"""What this machine remembers of its jobs: whole records only, found by the beginning of an id, never a
stranger's process taken for the job's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zmqmr.client import records
from zmqmr.client.records import Input, Process, Record, Records, settled
from zmqmr.errors import UsageError


@pytest.fixture
def known(tmp_path: Path) -> Records:
    return Records(str(tmp_path / "jobs"))


def record(job: str = "words.ada.1", **fields: object) -> Record:
    values = {"label": "words", "script": "/w.py", "arguments": ["in"], "cwd": "/", "begun": 100.0} | fields
    return Record(job=job, **values)  # type: ignore[arg-type]


def alive(**fields: object) -> Record:
    """The record of a job whose client is this process."""
    me = {"client": records.process(os.getpid())}
    return record(boot=records.boot_id(), processes=me, **fields)


def test_a_record_is_read_as_it_was_written_and_only_its_owner_can(known: Records) -> None:
    written = record(
        inputs=[Input("/in", 3, 4)], counters=[{"g": {"n": 2}}], state="failed", reason="no ✗", cwd="/\udcff"
    )
    known.write(written)
    assert known.read("words.ada.1") == written
    assert os.stat(known.path("words.ada.1")).st_mode & 0o777 == 0o600
    assert os.stat(known.directory).st_mode & 0o777 == 0o700
    assert os.listdir(known.directory) == ["words.ada.1.json"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"job":"x"}'])
def test_a_damaged_record_is_none_and_does_not_hide_the_others(known: Records, damage: bytes) -> None:
    known.write(record())
    Path(known.path("torn")).write_bytes(damage)
    assert known.read("torn") is None
    assert [each.job for each in known.all()] == ["words.ada.1"]


def test_records_are_listed_with_the_newest_first(known: Records) -> None:
    for number, begun in enumerate((5.0, 9.0, 7.0)):
        known.write(record(f"job{number}", begun=begun, state="succeeded"))
    assert [each.job for each in known.all()] == ["job1", "job2", "job0"]


def test_a_job_is_found_by_its_id_or_the_beginning_of_it(known: Records) -> None:
    for job in ("words.ada.1", "words.ada.12", "sums.ada.1"):
        known.write(record(job, state="succeeded"))
    assert known.find("words.ada.1").job == "words.ada.1"
    assert known.find("su").job == "sums.ada.1"
    with pytest.raises(UsageError, match=r"may be any of words\.ada\.1, words\.ada\.12"):
        known.find("words")
    for name in ("nope", "../jobs/words.ada.1", "/"):
        with pytest.raises(UsageError, match="there is no job"):
            known.find(name)


def test_without_any_record_there_is_nothing_to_list(known: Records) -> None:
    assert known.all() == []


def test_f37_a_running_job_is_lost_when_none_of_its_processes_lives() -> None:
    assert settled(alive()).state == "running"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    theirs = records.process(child.pid)
    assert theirs.started > 0
    of_child = record(boot=records.boot_id(), processes={"client": theirs})
    assert settled(of_child).state == "running"
    child.communicate(b"\n")
    assert settled(of_child).state == "lost"
    assert settled(record(state="succeeded")).state == "succeeded"


def test_another_process_with_the_number_of_the_jobs_is_not_the_jobs() -> None:
    me = records.process(os.getpid())
    reused = record(boot=records.boot_id(), processes={"client": Process(me.pid, me.started - 1)})
    assert settled(reused).state == "lost"
    before_the_start_of_the_machine = record(boot="another", processes={"client": me})
    assert settled(before_the_start_of_the_machine).state == "lost"


def test_a_process_that_has_ended_but_is_not_reaped_does_not_live() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert records.started(child.pid) == -1
    child.wait()


def test_a_record_is_bounded_however_many_counters_a_job_has() -> None:
    many = [{f"g{g}": {f"n{n}": 1 for n in range(300)} for g in range(10)}]
    kept = records.bounded(many)
    assert sum(len(names) for names in kept[0].values()) == records.MAX_COUNTERS
    assert records.bounded([{"g": {"n": 1}}, {}]) == [{"g": {"n": 1}}, {}]
