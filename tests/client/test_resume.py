"""Which earlier job is taken up, and what is said of it."""

import os
from pathlib import Path

import pytest

from zmqmr.client import resume
from zmqmr.client.records import Input, Record, Records
from zmqmr.data import places
from zmqmr.errors import UsageError

COMMAND = ("/w.py", ["in"])


@pytest.fixture
def known(tmp_path: Path) -> Records:
    return Records(str(tmp_path / "jobs"))


@pytest.fixture
def data(tmp_path: Path) -> str:
    """The directory of an earlier job that left the spools of two tasks."""
    data = places.make(str(tmp_path), "old")
    spools = Path(places.spools(data, "old"))
    spools.mkdir(parents=True)
    for name in ("a", "b"):
        (spools / f"{name}.spool").write_text("12345678")
        (spools / f"{name}.done").write_text("12")
    return data


def record(job: str, **fields: object) -> Record:
    values = {
        "label": "words",
        "script": "/w.py",
        "arguments": ["in"],
        "cwd": os.getcwd(),
        "begun": 100.0,
        "state": "failed",
        "inputs": [Input("/in", 3, 4)],
        "input_count": 1,
        "bundle_sha256": "aa",
        "files": {"w.py": Input("/w.py", 1, 2), "lib.py": Input("/lib.py", 1, 2)},
        "versions": {"python": "3.11.7"},
    }
    return Record(job=job, **(values | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "argv",
    [
        ["-r", "zeromq", "in", "--n", "3"],
        ["in", "--resume", "--n", "3", "--detach"],
        ["--resume-from", "job", "in", "--n", "3", "-q"],
        ["--resume-from=job", "in", "--n", "3", "--verbose"],
    ],
)
def test_how_a_command_is_run_does_not_make_it_another_one(argv: list[str]) -> None:
    assert resume.own_arguments(argv) == ["in", "--n", "3"]


def test_the_newest_run_of_the_same_command_is_found(known: Records) -> None:
    for number, fields in enumerate(({}, {}, {"arguments": ["other"]}, {"cwd": "/tmp"}, {"script": "/x.py"})):
        known.write(record(f"job{number}", begun=100.0 + number, **fields))
    assert resume.find(COMMAND, "", known).record.job == "job1"
    assert resume.find(COMMAND, "job3", known).record.job == "job3"
    with pytest.raises(UsageError, match="no earlier run"):
        resume.find(("/w.py", ["never"]), "", known)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"state": "succeeded"}, "nothing to resume"),
        ({"state": "failed", "resumed_by": "later"}, "was resumed by later"),
    ],
)
def test_a_job_that_left_nothing_to_do_is_refused(known: Records, fields: dict[str, str], says: str) -> None:
    known.write(record("old", **fields))
    with pytest.raises(UsageError, match=says):
        resume.find(COMMAND, "", known)


def test_what_is_used_again_is_said(known: Records, data: str) -> None:
    known.write(record("old", data=data, state="killed"))
    earlier = resume.find(COMMAND, "", known)
    assert earlier.usable(record("new"))
    (line,) = earlier.explain(record("new"))
    assert line.startswith("resuming old, which was killed: 2 finished tasks, 20 bytes, are used again")


@pytest.mark.parametrize(
    ("fields", "says", "usable"),
    [
        ({"inputs": [Input("/in", 3, 5)]}, "input /in changed", True),
        ({"inputs": [Input("/more", 3, 4)]}, "input /in is gone; input /more is new", True),
        ({"input_count": 2000}, "there are 2000 inputs, there were 1", True),
        ({"settings": {"split_bytes": "5"}}, "ZMQMR_SPLIT_BYTES changed", True),
        ({"task_args": ["--n", "4"]}, "the switches changed", True),
        ({"versions": {"python": "3.12.1"}}, "python is 3.12.1, it was 3.11.7", False),
        ({"bundle_sha256": "bb"}, "the job's files changed", False),
        (
            {"bundle_sha256": "bb", "files": {"w.py": Input("/w.py", 9, 9)}},
            "the job file changed",
            False,
        ),
        (
            {"bundle_sha256": "bb", "files": {"w.py": Input("/w.py", 1, 2), "lib.py": Input("/l", 7, 7)}},
            "the job's file lib.py changed",
            False,
        ),
    ],
)
def test_why_the_rest_is_not_used_is_said(
    known: Records, data: str, fields: dict[str, object], says: str, usable: bool
) -> None:
    known.write(record("old", data=data))
    earlier = resume.find(COMMAND, "", known)
    new = record("new", **fields)
    assert earlier.usable(new) is usable
    assert says in earlier.explain(new)[-1]


def test_settings_that_no_output_depends_on_are_no_reason(known: Records, data: str) -> None:
    known.write(record("old", data=data, settings={"status_port": "1"}))
    assert len(resume.find(COMMAND, "", known).explain(record("new"))) == 1


def test_two_commands_do_not_take_up_the_same_job(known: Records, data: str) -> None:
    known.write(record("old", data=data))
    first = resume.find(COMMAND, "", known)
    with pytest.raises(UsageError, match="being resumed"):
        resume.find(COMMAND, "", known)
    first.ended("new", succeeded=True)
    assert not Path(data).exists()
    with pytest.raises(UsageError, match="was resumed by new"):
        resume.find(COMMAND, "", known)
