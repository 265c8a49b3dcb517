"""What a failed job says, as its user reads it: names that the user knows, and what was being done."""

import subprocess
import sys
from pathlib import Path

import pytest
from differential.harness import Result, plain_environ, run_zmqmr

JOB = """
from mrjob.job import MRJob
from mrjob.protocol import RawProtocol
class Job(MRJob):
{body}
Job.run()
"""
MAPPER = "    def mapper(self, _, line):\n        yield 'k-' + line, {value}\n"
REDUCER = "    def reducer(self, key, values):\n        yield key, {value}\n"
# Where a value is written that no JSON can hold, and who yielded it.
BODIES = {
    "mapper": MAPPER.format(value="{1, 2}"),
    "mapper to reducer": MAPPER.format(value="{1, 2}") + REDUCER.format(value="sum(values)"),
    "reducer": MAPPER.format(value="1") + REDUCER.format(value="{1, 2}"),
    "mapper to combiner": MAPPER.format(value="{1, 2}")
    + "    def combiner(self, key, values):\n        yield key, 1\n"
    + REDUCER.format(value="sum(values)"),
    "combiner": MAPPER.format(value="1")
    + "    def combiner(self, key, values):\n        yield key, {1, 2}\n"
    + REDUCER.format(value="sum(values)"),
}


def _run(tmp_path: Path, text: str, stdin: bytes = b"a\n", **environ: str) -> Result:
    job = tmp_path / "job.py"
    job.write_text(text)
    return run_zmqmr(job, stdin=stdin, environ=environ)


@pytest.mark.parametrize("where", BODIES)
def test_a_value_that_cannot_be_written_is_shown_with_who_yielded_it(tmp_path: Path, where: str) -> None:
    failed = _run(tmp_path, JOB.format(body=BODIES[where]))
    assert failed.rc == 1
    reason = "TypeError: Object of type set is not JSON serializable"
    yielded = f"while writing what the {where.partition(' ')[0]} yielded: key 'k-a', value {{1, 2}}"
    assert f"  {reason}; {yielded}\n" in failed.stderr


def test_a_writer_of_the_jobs_own_protocol_is_told_from_its_mapper(tmp_path: Path) -> None:
    own = "    OUTPUT_PROTOCOL = RawProtocol\n    def mapper(self, _, line):\n        yield line, 7\n"
    assert (
        "while writing what the mapper yielded: key 'a', value 7"
        in _run(tmp_path, JOB.format(body=own)).stderr
    )
    raises = "    def mapper(self, _, line):\n        yield line, 7\n        raise KeyError(line)\n"
    failed = _run(tmp_path, JOB.format(body=raises))
    assert "KeyError: 'a'" in failed.stderr and "while writing" not in failed.stderr


def test_a_failure_on_standard_input_names_it_as_that(tmp_path: Path) -> None:
    body = "    def mapper(self, _, line):\n        raise ValueError(line)\n        yield\n"
    failed = _run(tmp_path, JOB.format(body=body), b"one\ntwo\n")
    assert "  while reading standard input at byte 0\n" in failed.stderr
    assert "STDIN" not in failed.stderr.replace("reading from STDIN", "")


def test_a_line_of_standard_input_that_is_too_long_names_it_as_that(tmp_path: Path) -> None:
    body = MAPPER.format(value="1")
    failed = _run(tmp_path, JOB.format(body=body), b"ok\n" + b"x" * 5000 + b"\n", ZMQMR_MAX_LINE_BYTES="1000")
    assert failed.rc == 1
    assert "standard input" in failed.stderr
    assert "STDIN" not in failed.stderr.replace("reading from STDIN", "")


# --- replay ----------------------------------------------------------------------------------

CHATTY = """
    def mapper(self, _, line):
        self.increment_counter('words', 'seen', 2)
        self.set_status('at ' + line)
        if line == 'bad':
            raise ValueError('cannot take ' + line)
        yield line, 1
"""


def _replay(failed: Result, *args: str | Path) -> "subprocess.CompletedProcess[str]":
    (path,) = {
        line.split("zmqmr replay ")[1] for line in failed.stderr.splitlines() if "run it alone:" in line
    }
    command = [sys.executable, "-m", "zmqmr", "replay", path, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=plain_environ())


@pytest.fixture
def failed(tmp_path: Path) -> Result:
    """A run that failed on the hundredth line."""
    text = "".join(f"line {number}\n" for number in range(99)) + "bad\n"
    return _run(tmp_path, JOB.format(body=CHATTY), text.encode())


def test_replay_shows_the_end_of_the_output_and_the_traceback_last(failed: Result) -> None:
    replayed = _replay(failed)
    assert replayed.returncode == 1
    assert replayed.stdout.splitlines() == [f'"line {number}"\t1' for number in range(79, 99)]
    assert "79 lines of output are not shown; --output FILE keeps all" in replayed.stderr
    assert "counter words,seen = 200" in replayed.stderr
    assert "reporter:" not in replayed.stderr
    assert replayed.stderr.endswith("ValueError: cannot take bad\n")
    traceback = replayed.stderr[replayed.stderr.index("Traceback") :]
    assert '  File "job.py", line ' in traceback
    assert "mrjob" not in traceback and "zmqmr-replay-" not in traceback


def test_replay_keeps_all_output_in_a_file(failed: Result, tmp_path: Path) -> None:
    output = tmp_path / "all"
    replayed = _replay(failed, "--output", output)
    assert output.read_text() == "".join(f'"line {number}"\t1\n' for number in range(99))
    assert replayed.stdout == "" and str(output) in replayed.stderr
