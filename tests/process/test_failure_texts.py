"""What a failed job says, as its user reads it: names that the user knows, and what was being done."""

import gzip
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


SET_UP = """
import os
from mrjob.job import MRJob
class Job(MRJob):
    def mapper(self, _, line):
        import from_first, from_second
        raise ValueError(os.environ['FOO'])
        yield
Job.run()
"""


def test_replay_runs_the_setup_commands_as_the_task_did(tmp_path: Path) -> None:
    """What they set is there, and all of the PYTHONPATH that they give, the first place in it too."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"from_{name}.py").write_text("")
    job = tmp_path / "job.py"
    job.write_text(SET_UP)
    setup = [
        *("--setup", "export FOO=bar"),
        *("--setup", f"export PYTHONPATH={tmp_path}/first:{tmp_path}/second:$PYTHONPATH"),
    ]
    failed = run_zmqmr(job, setup, stdin=b"a\n")
    assert "ValueError: bar" in failed.stderr
    replayed = _replay(failed)
    assert (replayed.returncode, replayed.stderr.splitlines()[-1]) == (1, "ValueError: bar")
    assert "another way" not in replayed.stderr


def test_replay_says_when_it_fails_in_another_way(tmp_path: Path) -> None:
    body = "    def mapper(self, _, line):\n        open({path!r}).close()\n        raise ValueError(line)\n"
    there = tmp_path / "there"
    there.write_text("")
    failed = _run(tmp_path, JOB.format(body=body.format(path=str(there))))
    there.unlink()
    replayed = _replay(failed)
    assert replayed.returncode == 1
    assert "it failed in another way than in the job; this time:\n\nTraceback" in replayed.stderr
    assert "FileNotFoundError" in replayed.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "how"),
    [("os._exit(0)", "exit code 0"), ("os.kill(os.getpid(), 11)", "killed by SIGSEGV (signal 11)")],
)
def test_a_task_that_ends_without_a_word_can_be_replayed(tmp_path: Path, code: str, how: str) -> None:
    ending = f"        if line == 'bad':\n            {code}\n"
    body = "    def mapper(self, _, line):\n        import os\n" + ending
    failed = _run(tmp_path, JOB.format(body=body), b"one\nbad\ntwo\n")
    replayed = _replay(failed)
    assert replayed.returncode == 1
    assert f"the task's process ended: {how}" in replayed.stderr


def test_replay_refuses_an_output_that_cannot_be_written(failed: Result) -> None:
    replayed = _replay(failed, "--output", "/nonexistent/all")
    assert replayed.returncode == 2
    assert replayed.stderr == "zmqmr: cannot write --output /nonexistent/all: No such file or directory\n"


NO_BUNDLE = {
    "the job's code was not at a record": "    def mapper_init(self):\n        raise ValueError()\n",
    "is known of mappers that read the input only": MAPPER.format(value="1")
    + "    def reducer(self, key, values):\n        import os\n        os._exit(3)\n",
    "the task reads whole files": "    def mapper_raw(self, path, uri):\n        raise ValueError()\n",
    "the substep runs as a command": "    def mapper_cmd(self):\n        return 'false'\n",
}


@pytest.mark.parametrize("why", NO_BUNDLE)
def test_a_failure_without_a_repro_bundle_says_why(tmp_path: Path, why: str) -> None:
    failed = _run(tmp_path, JOB.format(body=NO_BUNDLE[why]))
    (said,) = [line for line in failed.stderr.splitlines() if line.startswith("  no repro bundle: ")]
    assert why in said
    assert "run it alone" not in failed.stderr


def test_a_setup_command_that_fails_is_named_as_that(tmp_path: Path) -> None:
    job = tmp_path / "job.py"
    job.write_text(JOB.format(body=MAPPER.format(value="1")))
    setup = ["--setup", "echo almost >&2", "--setup", "sh -c 'exit 7'"]
    failed = run_zmqmr(job, setup, stdin=b"a\n")
    assert failed.rc == 1
    assert "The job cannot begin on host" in failed.stderr
    assert "the --setup commands failed: exit code 7" in failed.stderr
    assert "the end of its standard error:" in failed.stderr
    assert "    almost\n    + sh -c exit 7\n" in failed.stderr


def test_input_that_cannot_be_read_has_no_repro_bundle(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"line\n" * 1000)[:-10])
    job = tmp_path / "job.py"
    job.write_text(JOB.format(body=MAPPER.format(value="1")))
    failed = run_zmqmr(job, inputs=[path])
    assert "  no repro bundle: it is the input that cannot be read\n" in failed.stderr
