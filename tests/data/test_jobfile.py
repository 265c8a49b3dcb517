"""Job files as users write them, each loaded in a process of its own: loading replaces `__main__`."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LOAD = """
import sys
from zmqmr.data.jobfile import load_job_class
from zmqmr.errors import JobFileError
try:
    job_class = load_job_class(sys.argv[1], sys.argv[2:])
    print(job_class.__name__, job_class.__module__, sys.argv)
    print(job_class.mr_job_script(), sys.path[0])
except JobFileError as error:
    print("JobFileError:", error)
"""
RUN = """
import sys
from zmqmr.data.jobfile import run_job_file
run_job_file(sys.argv[1], sys.argv[2:])
"""
JOB = """
from mrjob.job import MRJob

class {name}(MRJob):
    def mapper(self, _, line):
        yield line, 1
"""
RUN_IT = """
if __name__ == '__main__':
    {name}.run()
    print('after the run')
"""


def job(name: str, run: bool = True) -> str:
    return JOB.format(name=name) + (RUN_IT.format(name=name) if run else "")


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "job.py") -> str:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write_file


def python(script: str, *args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *args]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)


def load(*args: str) -> str:
    done = python(LOAD, *args)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_class_that_the_file_runs_is_loaded_and_not_run(write):
    path = write(job("Words"))

    lines = load(path, "-r", "zeromq", "in.txt").splitlines()

    assert lines == [
        f"Words __main__ {[path, '-r', 'zeromq', 'in.txt']}",
        f"{path} {Path(path).parent}",
    ]


def test_of_several_jobs_the_one_that_is_run_counts(write):
    assert load(write(job("First", run=False) + job("Second") + job("Third", run=False))).startswith(
        "Second "
    )


def test_an_imported_job_can_be_run_by_another_file(write):
    write(job("Words"), "words.py")

    assert load(write("from words import Words\nWords.run()\n")).startswith("Words words ")


def test_a_job_that_overrides_run_is_loaded(write):
    text = job("Words").replace(
        "def mapper", "@classmethod\n    def run(cls):\n        super().run()\n\n    def mapper"
    )

    assert load(write(text)).startswith("Words ")


def test_a_file_that_makes_a_runner_names_its_job_so(write):
    text = (
        job("Words", run=False)
        + "job = Words(args=[])\nwith job.make_runner() as runner:\n    runner.run()\n"
    )

    assert load(write(text)).startswith("Words ")


def test_a_file_that_runs_nothing_has_its_only_job_loaded(write):
    text = "from mrjob.examples.mr_word_freq_count import MRWordFreqCount\n" + job("Words", run=False)

    assert load(write(text)).startswith("Words ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "defines no subclass of mrjob.job.MRJob"),
        ("from mrjob.job import MRJob\n", "defines no subclass of mrjob.job.MRJob"),
        (job("First", run=False) + job("Second", run=False), "defines 2 jobs (First, Second)"),
        ("raise SystemExit(3)\n", "ended with exit status 3 before it ran a job"),
        ("def f(:\n", "SyntaxError"),
        ("x = 'a\0b'\n", "null bytes"),
    ],
)
def test_a_file_without_one_job_is_refused_by_name(write, text, message):
    path = write(text)

    said = load(path)

    assert said.startswith(f"JobFileError: {path} ")
    assert message in said


def test_a_refused_file_is_told_what_to_do(write):
    for text in ("x = 1\n", "raise SystemExit\n", job("First", run=False) + job("Second", run=False)):
        assert "call MyJob.run() under if __name__ == '__main__':" in load(write(text))


def test_a_file_that_does_not_import_is_shown_with_the_users_frames_only(write):
    write("def fail():\n    raise KeyError('no such thing')\n", "helper.py")
    path = write("import helper\nhelper.fail()\n")

    said = load(path)

    assert said.startswith(f"JobFileError: {path} cannot be executed:\nTraceback (most recent call last):\n")
    assert f'File "{path}", line 2' in said
    assert "helper.py" in said
    assert said.endswith("KeyError: 'no such thing'\n")
    assert "jobfile.py" not in said
    assert "importlib" not in said


def test_a_path_that_is_no_file_is_refused(tmp_path):
    assert load(str(tmp_path / "none.py")).endswith("none.py: No such file or directory\n")
    assert load(str(tmp_path)).endswith(": Is a directory\n")


def test_source_in_another_encoding_is_read_as_python_reads_it(write, tmp_path):
    path = tmp_path / "job.py"
    path.write_bytes(
        b"# -*- coding: latin-1 -*-\nNAME = '\xe9'\nassert len(NAME) == 1\n" + job("Words").encode()
    )

    assert load(str(path)).startswith("Words ")


def test_running_a_file_runs_what_follows_its_run_too(write):
    done = python(RUN, write(job("Words")), "-r", "inline", "-q", stdin="x\n")

    assert (done.returncode, done.stdout) == (0, '"x"\t1\nafter the run\n')


def test_running_a_file_that_runs_nothing_runs_its_only_job(write):
    done = python(RUN, write(job("Words", run=False)), "-r", "inline", "-q", stdin="x\n")

    assert (done.returncode, done.stdout) == (0, '"x"\t1\n')


def test_a_file_that_makes_its_own_runner_is_not_run_twice(write):
    text = """
        job = Words(args=['-r', 'inline'])
        job.sandbox(stdin=__import__('io').BytesIO(b'x\\n'))
        with job.make_runner() as runner:
            runner.run()
            print(list(job.parse_output(runner.cat_output())))
    """
    done = python(RUN, write(job("Words", run=False) + textwrap.dedent(text)))

    assert (done.returncode, done.stdout) == (0, "[('x', 1)]\n")


def test_an_error_of_the_job_itself_is_passed_on(write):
    text = job("Words").replace("yield line, 1", "raise ZeroDivisionError('mine')")

    done = python(RUN, write(text), "-r", "inline", "-q", stdin="x\n")

    assert done.returncode == 1
    assert "ZeroDivisionError: mine" in done.stderr
    assert "JobFileError" not in done.stderr


def test_importing_mrjob_leaves_no_trace_of_distutils():
    script = """
import sys
from zmqmr.data.jobfile import import_mrjob
finders = set(sys.meta_path)
import_mrjob()
print(finders - set(sys.meta_path))
if sys.version_info < (3, 12):
    print([name for name in sys.modules if name.startswith(('distutils', 'setuptools'))])
else:
    print([])
import mrjob.util, mrjob.compat
print(mrjob.util.find_executable('sh') is not None, mrjob.compat.version_gte('2.10', '2.9'))
import setuptools
"""
    done = python(script)

    assert (done.stdout, done.stderr) == ("set()\n[]\nTrue True\n", "")
