"""zmqmr-run as a user meets it: the command line, its messages and its exit codes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from environment import clean_environment

import zmqmr

JOB = """\
import sys
from mrjob.job import MRJob

class Letters(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg('--rounds', type=int, default=1)

    def mapper(self, _, line):
        if line == 'bad':
            raise RuntimeError('a bad line')
        if line == 'open':
            open('/no/such/file')
        yield line, self.options.rounds

    def run_job(self):
        print('runner:', self.options.runner, file=sys.stderr)
        super().run_job()

if __name__ == '__main__':
    Letters.run()
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "job.py").write_text(JOB)
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, sys.path))
    return clean_environment(HOME=str(folder), PYTHONPATH=path, ZMQMR_NO_HOOK="1")


def zmqmr_run(folder: Path, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zmqmr.cli.run", *args],
        cwd=folder,
        env=environment(folder),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_arguments_it_says_how_to_use_it(folder):
    done = zmqmr_run(folder)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("zmqmr-run: no job file is given\n")
    assert "usage: zmqmr-run JOB.py" in done.stderr


@pytest.mark.parametrize("switch", ["-h", "--help"])
def test_help_is_given_without_a_job(folder, switch):
    done = zmqmr_run(folder, switch)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: zmqmr-run JOB.py")


def test_the_version_is_given(folder):
    assert zmqmr_run(folder, "--version").stdout == f"zmqmr-run {zmqmr.__version__}\n"


def test_switches_before_the_job_file_are_refused(folder):
    done = zmqmr_run(folder, "-r", "local", "job.py")

    assert done.returncode == 2
    assert done.stderr == "zmqmr-run: the job file comes first, then its switches: zmqmr-run JOB.py -r ...\n"


def test_the_runner_is_zeromq_unless_another_is_named(folder):
    assert "runner: zeromq\n" in zmqmr_run(folder, "job.py", "no-such-input").stderr


@pytest.mark.parametrize(
    "spelling", [["-r", "inline"], ["-rinline"], ["--runner=inline"], ["--runn", "inline"]]
)
def test_another_runner_is_used_however_it_is_asked_for(folder, spelling):
    done = zmqmr_run(folder, "job.py", "--rounds", "3", *spelling, "-q", stdin="x\n")

    assert (done.returncode, done.stdout) == (0, '"x"\t3\n')
    assert "runner: inline\n" in done.stderr


def test_the_switches_may_come_after_the_inputs(folder):
    (folder / "in.txt").write_text("y\n")

    assert zmqmr_run(folder, "job.py", "in.txt", "-r", "local", "-q").stdout == '"y"\t1\n'


def test_a_word_count_runs_over_zeromq(folder):
    done = zmqmr_run(folder, "job.py", "--rounds", "2", "-", stdin="x\n")

    assert (done.returncode, done.stdout) == (0, '"x"\t2\n'), done.stderr


def test_the_help_of_the_job_is_mrjobs(folder):
    done = zmqmr_run(folder, "job.py", "--help")

    assert done.returncode == 0
    assert "--rounds" in done.stdout


def test_a_wrong_switch_is_mrjobs_usage_error(folder):
    done = zmqmr_run(folder, "job.py", "--no-such-switch")

    assert done.returncode == 2
    assert "unrecognized arguments: --no-such-switch" in done.stderr


def test_a_job_file_with_a_mistake_is_one_message_and_exit_code_2(folder):
    (folder / "job.py").write_text("import no_such_module\n")

    done = zmqmr_run(folder, "job.py")

    assert done.returncode == 2
    assert done.stderr.startswith("zmqmr-run: job.py cannot be executed:\n")
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'no_such_module'\n")
    assert "zmqmr/" not in done.stderr


@pytest.mark.parametrize("runner", ["zeromq", "inline", "local"])
def test_a_missing_input_is_one_line_and_exit_code_2(folder, runner):
    done = zmqmr_run(folder, "job.py", "-r", runner, "no-such-input")

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "no-such-input" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"runners: [", "is no YAML: line 1, column 11: expected the node content, but found '<stream end>'"),
        (b"runners:\n\tzeromq:\n", "is no YAML: line 2, column 1: "),
        (b"runners\n", "does not begin with runners:"),
        (b"\xff\xff: 1\n", "cannot be used: 'utf-8' codec can't decode"),
        (None, "cannot read the configuration file mrjob.conf: No such file or directory; "),
    ],
)
@pytest.mark.parametrize("door", [["-m", "zmqmr.cli.run"], []])
def test_a_configuration_file_that_cannot_be_used_is_one_line(folder, door, text, says):
    if text is not None:
        (folder / "mrjob.conf").write_bytes(text)
    job = folder / "job.py"
    job.write_text(f"import zmqmr.register\n{JOB}")
    done = subprocess.run(
        [sys.executable, *door, "job.py", "-r", "zeromq", "-c", "mrjob.conf"],
        **(
            dict(
                cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
        ),
        timeout=60,
    )

    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(("runner:", "Looking"))]
    assert "mrjob.conf" in line and says in line
    assert "--no-conf" in line


def test_a_missing_configuration_file_is_one_line_and_exit_code_2(folder):
    done = zmqmr_run(folder, "job.py", "-r", "inline", "-c", "none.conf", stdin="x\n")

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "none.conf" in done.stderr


@pytest.mark.parametrize(("line", "message"), [("bad", "a bad line"), ("open", "/no/such/file")])
def test_an_error_of_the_job_under_inline_keeps_its_traceback(folder, line, message):
    done = zmqmr_run(folder, "job.py", "-r", "inline", stdin=f"{line}\n")

    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert message in done.stderr


@pytest.mark.parametrize("runner", ["zeromq", "local"])
def test_a_failed_job_has_exit_code_1(folder, runner):
    (folder / "in.txt").write_text("bad\n")

    done = zmqmr_run(folder, "job.py", "-r", runner, "in.txt")

    assert (done.returncode, done.stdout) == (1, "")
    assert "a bad line" in done.stderr


@pytest.mark.parametrize("door", ["-m zmqmr.cli.run job.py -r inline", "job.py -r zeromq"])
def test_output_that_nobody_reads_is_no_traceback(folder, door):
    (folder / "in.txt").write_text("".join(f"{number}\n" for number in range(200_000)))
    (folder / "job.py").write_text(f"import zmqmr.register\n{JOB}")
    command = f"{sys.executable} {door} -q in.txt | head -n 1"

    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.stdout.endswith('"\t1\n')
    assert done.stderr == f"runner: {door.split()[-1]}\n"


def test_an_interrupt_ends_it_with_130_and_no_traceback(folder):
    child = subprocess.Popen(
        [sys.executable, "-m", "zmqmr.cli.run", "job.py", "-r", "inline", "-"],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        said = ""
        while "reading from STDIN" not in said:
            line = child.stderr.readline()
            assert line, said
            said += line
        child.send_signal(signal.SIGINT)
        said += child.stderr.read()

    assert child.returncode == 130
    assert said.splitlines()[-1] == "zmqmr-run: interrupted"
    assert "Traceback" not in said
