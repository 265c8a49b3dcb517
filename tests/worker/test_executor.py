"""An executor outlives whatever its attempts do to themselves, and says how each ended."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from environment import ROOT
from hypothesis import given
from hypothesis import strategies as st

from zmqmr.messages import AttemptEnded, Failure
from zmqmr.worker.executor import _StandardError

JOB = """
import os, signal, sys, time
from mrjob.job import MRJob

class Job(MRJob):
    def mapper(self, _, what):
        if what == "raise":
            raise ValueError("no number")
        elif what == "exit":
            sys.exit(3)
        elif what == "_exit":
            os._exit(0)
        elif what == "_exit_5":
            os._exit(5)
        elif what == "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif what == "wait":
            self.set_status("waiting")
            time.sleep(1000)
        elif what == "stderr":
            sys.stderr.write("some words\\n")
            sys.stderr.write("reporter:counter:mine,by hand,5\\n")
            sys.stderr.write("reporter:counter:mine,absurd," + "9" * 30 + "\\n")
            self.increment_counter("mine", "by mrjob", 2)
        elif what == "last_words":
            sys.stderr.write("so it ends")
            sys.stderr.flush()
            os._exit(1)
        yield what, 1

if __name__ == "__main__":
    Job.run()
"""
TASKS = ["good", "raise", "exit", "_exit", "_exit_5", "signal", "wait", "stderr", "last_words"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("executor")
    (path / "work").mkdir()
    (path / "work" / "job.py").write_text(JOB)
    return path


@pytest.fixture(scope="module")
def ended(folder: Path) -> dict[str, AttemptEnded]:
    """How the attempts ended, all under one executor."""
    tests = ROOT / "tests"
    paths = [str(tests), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(tests / "worker" / "executor_driver.py"), str(folder), *TASKS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=folder,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=dict[str, AttemptEnded])


def failure_of(ended: AttemptEnded) -> Failure:
    assert ended.done is None and ended.failure is not None
    return ended.failure


def test_success(ended: dict[str, AttemptEnded], folder: Path) -> None:
    assert ended["good"].failure is None
    done = ended["good"].done
    assert done is not None
    assert (done.task, done.attempt, done.epoch, done.records, done.output_records) == ("good", 1, 7, 1, 1)
    assert (folder / "good.out").read_bytes() == b'"good"\t1\n'


def test_an_exception(ended: dict[str, AttemptEnded], folder: Path) -> None:
    failure = failure_of(ended["raise"])
    assert failure.reason == "ValueError: no number"
    assert (failure.path, failure.offset, failure.record) == (str(folder / "raise.in"), 0, "'raise'")
    assert 'File "job.py", line 8, in mapper' in failure.traceback


def test_an_exit(ended: dict[str, AttemptEnded]) -> None:
    assert failure_of(ended["exit"]).reason == "the job called sys.exit(3) in a task"


def test_an_exit_with_code_0_that_skips_everything_is_no_success(ended: dict[str, AttemptEnded]) -> None:
    assert "exit code 0 before the end of its input" in failure_of(ended["_exit"]).reason
    assert failure_of(ended["_exit_5"]).reason == "the task's process ended: exit code 5"


def test_a_signal(ended: dict[str, AttemptEnded]) -> None:
    assert failure_of(ended["signal"]).reason == "the task's process ended: killed by SIGSEGV (signal 11)"


def test_a_kill(ended: dict[str, AttemptEnded]) -> None:
    failure = failure_of(ended["wait"])
    assert "was killed" in failure.reason
    assert failure.traceback.startswith("Killed while it was here")


def test_reports_on_standard_error_are_counted(ended: dict[str, AttemptEnded]) -> None:
    done = ended["stderr"].done
    assert done is not None
    assert done.counters == {"0": {"mine": {"by hand": 5, "by mrjob": 2}}}


def test_last_words_are_kept(ended: dict[str, AttemptEnded]) -> None:
    assert failure_of(ended["last_words"]).stderr.splitlines() == ["so it ends"]


# --- standard error ----------------------------------------------------------------------------

REPORTS = (
    b"plain\nreporter:counter:a,b,3\nreporter:counter:a,b,-1\r\nreporter:status:half way\n"
    b" reporter:counter:not,at the start,1\nreporter:counter:bad,amount,x\nreporter:counter:\xff,n,1\nend"
)


def fed(*parts: bytes, keep_bytes: int = 100_000) -> tuple[_StandardError, str]:
    stderr = _StandardError(keep_bytes, max_counters=10)
    for part in parts:
        stderr.feed(part)
    return stderr, stderr.end()


@given(st.lists(st.integers(0, len(REPORTS)), max_size=6))
def test_reports_are_taken_out_wherever_they_are_cut(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(REPORTS)]
    stderr, words = fed(*(REPORTS[start:end] for start, end in itertools.pairwise(bounds)))
    assert stderr.counters == {"a": {"b": 2}, "\ufffd": {"n": 1}}
    assert stderr.status == "half way"
    assert words == "plain\n reporter:counter:not,at the start,1\nreporter:counter:bad,amount,x\nend\n"


def test_a_report_that_is_cut_before_a_flood_is_taken_out() -> None:
    stderr, words = fed(b"repor", b"ter:counter:a,b,1\n" + b"noise\n" * 1000)
    assert stderr.counters == {"a": {"b": 1}}
    assert words == "noise\n" * 1000


def test_counters_that_a_task_names_without_end_are_bounded() -> None:
    lines = [b"reporter:counter:g%d,%s%d,1\n" % (n % 3, b"n" * 2000, n) for n in range(1000)]
    lines += [b"reporter:counter:other,%d,1\n" % n for n in range(1000)] + [b"reporter:counter:other,3,1\n"]
    stderr, words = fed(*lines)
    assert words == ""
    assert stderr.counters["g0"] == {"n" * 1000: 334}, "names are cut"
    assert sum(map(len, stderr.counters.values())) == 11, "one more than a job may have"
    assert stderr.counters["other"]["3"] == 2


@given(st.lists(st.binary(max_size=300), max_size=30), st.integers(1, 500))
def test_of_other_words_the_end_is_kept(parts: list[bytes], keep_bytes: int) -> None:
    parts = [part.replace(b":", b"") for part in parts]
    _, words = fed(*parts, keep_bytes=keep_bytes)
    text = b"".join(parts)
    text += b"\n" if text and not text.endswith(b"\n") else b""
    assert words == text[-keep_bytes:].decode("utf-8", "replace")


def test_an_endless_line_does_not_grow_without_bound() -> None:
    stderr = _StandardError(1000, max_counters=10)
    for _ in range(1000):
        stderr.feed(b"x" * 10_000)
    assert len(stderr.end()) <= 1000
