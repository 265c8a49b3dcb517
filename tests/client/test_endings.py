"""How errors end a job file and how they end a program: as one line, or as an exception."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from zmqmr.client.endings import Terminated, nothing_started, said_to_user, signals_clean_up
from zmqmr.errors import EXIT_USAGE, CoordinatorUnreachable, InputError, UsageError

ROOT = Path(__file__).parent.parent.parent
JOB = """
    import zmqmr.register
    from mrjob.job import MRJob
    from mrjob.step import SparkStep

    class Job(MRJob):
        {body}

    if __name__ == "__main__":
        {main}
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a job file as its user does, with the given switches."""

    def start(
        *args: str,
        body: str = "def mapper(self, _, line): yield line, 1",
        main: str = "Job.run()",
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        job = tmp_path / "job.py"
        job.write_text(textwrap.dedent(JOB).format(body=body, main=main))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **(environ or {})}
        return subprocess.run(
            [sys.executable, str(job), "-r", "zeromq", "--no-conf", *args],
            env=environment,
            input="",
            capture_output=True,
            text=True,
            timeout=60,
        )

    return start


def only_line(ended: subprocess.CompletedProcess[str]) -> str:
    """What was said besides mrjob's own remarks."""
    lines = [
        line for line in ended.stderr.splitlines() if not line.startswith(("No configs", "Using configs"))
    ]
    assert len(lines) == 1, ended.stderr
    return lines[0]


def test_a_missing_input_is_one_line_and_exit_status_2(run: Run):
    ended = run("/no/such/input")
    assert ended.returncode == EXIT_USAGE
    assert "/no/such/input" in only_line(ended)


def test_an_output_directory_in_use_is_one_line_and_exit_status_2(run: Run, tmp_path: Path):
    ended = run("-o", str(tmp_path), str(tmp_path / "job.py"))
    assert ended.returncode == EXIT_USAGE
    assert "is not empty" in only_line(ended)
    assert os.listdir(tmp_path) == ["job.py"]


def test_a_spark_step_is_one_line_and_exit_status_2(run: Run):
    ended = run(body="def steps(self): return [SparkStep(spark=lambda i, o: None)]")
    assert ended.returncode == EXIT_USAGE
    assert "use -r spark" in only_line(ended)


def test_an_option_that_mrjob_itself_refuses_is_one_line_and_exit_status_2(run: Run):
    ended = run("--py-files", "a#b")
    assert ended.returncode == EXIT_USAGE
    assert only_line(ended) == "py_files cannot contain '#'"


def test_a_wrong_setting_is_one_line_and_exit_status_2(run: Run):
    ended = run(environ={"ZMQMR_SPLIT_BYTES": "many"})
    assert ended.returncode == EXIT_USAGE
    assert "ZMQMR_SPLIT_BYTES" in only_line(ended)


def test_wrong_usage_is_said_even_when_quiet(run: Run):
    ended = run("-q", "/no/such/input")
    assert ended.returncode == EXIT_USAGE
    assert "/no/such/input" in only_line(ended)


def test_t18_a_file_name_cannot_steer_the_terminal(run: Run):
    assert "\x1b" not in run("/no/such/\x1b[2Jinput").stderr


def test_a_program_gets_the_exception(run: Run):
    main = (
        "from zmqmr.errors import InputError\n"
        "    runner = Job().make_runner()\n"
        "    try: runner.run()\n"
        "    except InputError as error: print('caught', error.path, error.exit_code)"
    )
    ended = run("/no/such/input", main=main)
    assert (ended.returncode, ended.stdout) == (0, "caught /no/such/input 2\n")


def test_a_program_gets_every_error_as_it_is():
    for error in (UsageError("x"), CoordinatorUnreachable("y"), KeyboardInterrupt(), ValueError("z")):
        with pytest.raises(type(error)) as caught, said_to_user(constructing=True):
            raise error
        assert caught.value is error


def test_an_input_that_fails_before_the_start_is_wrong_usage_and_later_a_failed_job():
    with pytest.raises(InputError) as caught, nothing_started():
        raise InputError("x")
    assert caught.value.exit_code == EXIT_USAGE
    assert InputError("x").exit_code == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_cleans_up_like_an_interrupt(number: signal.Signals):
    with pytest.raises(KeyboardInterrupt) as caught, signals_clean_up():
        signal.raise_signal(number)
    assert isinstance(caught.value, Terminated)
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is signal.SIG_DFL


def test_a_signal_that_the_program_handles_or_ignores_stays_its_own():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_clean_up():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_a_thread_can_run_a_job_too():
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with signals_clean_up():
                pass
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
