"""Stock mrjob knows `-r zeromq` once the wheel is installed, on each Python that is present."""

import subprocess
import sys
from pathlib import Path

import pytest
from environment import OWN_PYTHON, PYTHONS, clean_environment

JOB = """\
{before}
from mrjob.job import MRJob
{after}

class WordCount(MRJob):
    def configure_args(self):
        super().configure_args()
        self.pass_arg_through('--runner')

    def mapper(self, _, line):
        import mrjob
        self.increment_counter('mrjob', mrjob.__file__)
        for word in line.split():
            yield word, 1

    def reducer(self, word, counts):
        yield word, sum(counts)

if __name__ == '__main__':
    WordCount.run()
"""
TEXT = "a rose is a rose\nis a rose\n"
COUNTS = {'"a"\t3', '"is"\t2', '"rose"\t3'}


@pytest.fixture(scope="session", params=PYTHONS)
def python(request, wheel, make_venv):
    """The interpreter of an environment with the wheel and its dependencies, for each Python."""
    return make_venv(request.param, str(wheel))


@pytest.fixture(scope="session")
def own_python(wheel, make_venv):
    """The same for the Python that runs the tests, without the dependencies."""
    return make_venv(OWN_PYTHON, "--no-deps", str(wheel))


@pytest.fixture
def folder(tmp_path):
    """A folder with a word count job, its two explicitly registered variants, and an input."""
    (tmp_path / "job.py").write_text(JOB.format(before="", after=""))
    (tmp_path / "before.py").write_text(JOB.format(before="import zmqmr.register", after=""))
    (tmp_path / "after.py").write_text(JOB.format(before="", after="import zmqmr.register"))
    (tmp_path / "in.txt").write_text(TEXT)
    return tmp_path


def execute(folder: Path, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=clean_environment(HOME=str(folder), **environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def counted(done: subprocess.CompletedProcess[str]) -> set[str]:
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


def test_a_job_runs_through_the_hook(python, folder):
    assert counted(execute(folder, python, "job.py", "-r", "zeromq", "in.txt")) == COUNTS


def test_a_job_runs_through_the_command(python, folder):
    command = python.parent / "zmqmr-run"

    assert counted(execute(folder, command, "job.py", "in.txt", ZMQMR_NO_HOOK="1")) == COUNTS


@pytest.mark.parametrize("job", ["before.py", "after.py"])
def test_a_job_runs_that_imports_the_registration(python, folder, job):
    assert counted(execute(folder, python, job, "-r", "zeromq", "in.txt", ZMQMR_NO_HOOK="1")) == COUNTS


def test_a_job_runs_through_mrjobs_interface_for_programs(python, folder):
    script = (
        "from job import WordCount\n"
        "with WordCount(args=['-r', 'zeromq', 'in.txt']).make_runner() as runner:\n"
        "    runner.run()\n"
        "    print(b''.join(runner.cat_output()).decode(), end='')\n"
    )

    assert counted(execute(folder, python, "-c", script)) == COUNTS


def test_a_task_that_is_given_the_runner_knows_it(python, folder):
    done = subprocess.run(
        [str(python), "job.py", "--mapper", "-r", "zeromq"],
        cwd=folder,
        env=clean_environment(),
        input="rose\n",
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (0, '"rose"\t1\n')


def test_help_names_the_runner(python, folder):
    done = execute(folder, python, "job.py", "-h", "-r", "zeromq")

    assert done.returncode == 0
    assert "zeromq" in done.stdout


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_mrjobs_own_runners_still_work(python, folder, runner):
    assert counted(execute(folder, python, "job.py", "-r", runner, "in.txt")) == COUNTS


def test_tasks_that_import_mrjob_from_a_zip_archive_work(python, folder):
    done = execute(folder, python, "job.py", "-r", "local", "in.txt")

    assert counted(done) == COUNTS
    assert "mrjob.zip" in done.stderr  # in the counter's name


@pytest.mark.parametrize("runner", ["emr", "hadoop", "dataproc"])
def test_mrjobs_other_runners_are_still_found(python, folder, runner):
    script = f"import mrjob.options, mrjob.runner; print(mrjob.runner._runner_class('{runner}').alias)"

    assert counted(execute(folder, python, "-c", script)) == {runner}


def test_the_hook_can_be_switched_off(python, folder):
    done = execute(folder, python, "job.py", "-r", "zeromq", "in.txt", ZMQMR_NO_HOOK="1")

    assert done.returncode == 2
    assert "invalid choice: 'zeromq'" in done.stderr


def test_the_doctor_finds_nothing_wrong(python, folder):
    done = execute(folder, python.parent / "zmqmr", "doctor")

    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout
    assert "ok       hook" in done.stdout


def test_the_doctor_says_that_the_hook_is_switched_off(python, folder):
    done = execute(folder, python.parent / "zmqmr", "doctor", ZMQMR_NO_HOOK="1")

    assert "warning  hook" in done.stdout
    assert "Unset ZMQMR_NO_HOOK." in done.stdout


def test_a_program_without_mrjob_loads_only_the_hook(own_python, folder):
    site = next((own_python.parent.parent / "lib").glob("python*/site-packages"))
    script = f"""
import os, sys
before = set(sys.modules)
exec(open({str(site / "zmqmr.pth")!r}).read())
print(sorted(set(sys.modules) - before))
"""
    done = execute(folder, own_python, "-S", "-c", script, PYTHONPATH=str(site))

    assert done.stdout == "['zmqmr', 'zmqmr.hook']\n"


def test_python_started_isolated_has_the_hook(own_python, folder):
    script = "import zmqmr.hook; print(zmqmr.hook.installed())"

    assert execute(folder, own_python, "-I", "-c", script).stdout == "True\n"


def in_child(script: str) -> subprocess.CompletedProcess[str]:
    """Execute a script with the zmqmr that these tests import, and without the start-up hook."""
    command = [sys.executable, "-c", script]
    environment = {**clean_environment(ZMQMR_NO_HOOK="1"), "PYTHONPATH": ":".join(filter(None, sys.path))}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("loaded", ["", "mrjob.options", "mrjob.runner", "mrjob.job"])
def test_install_works_whatever_of_mrjob_is_imported(loaded):
    done = in_child(f"""
{f"import {loaded}" if loaded else ""}
import zmqmr.hook
zmqmr.hook.install()
zmqmr.hook.install()
import sys
from mrjob.job import MRJob
print(MRJob(args=['-r', 'zeromq'])._runner_class().__name__)
print(sum(type(finder).__name__ == '_Finder' for finder in sys.meta_path))
""")

    assert (done.stdout, done.stderr) == ("ZeroMQMRJobRunner\n1\n", "")


@pytest.mark.parametrize("position", [0, 1])
def test_a_finder_that_asks_the_others_does_not_recurse(position):
    done = in_child(
        """
import sys

class Asking:
    def find_spec(self, name, path=None, target=None):
        for finder in sys.meta_path:
            if finder is not self:
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return spec

import zmqmr.hook
zmqmr.hook.install()
sys.meta_path.insert(POSITION, Asking())
import mrjob.options
print('zeromq' in mrjob.options._RUNNER_ALIASES)
""".replace("POSITION", str(position))
    )

    assert (done.stdout, done.stderr) == ("True\n", "")


def test_the_modules_look_as_if_they_had_not_been_touched():
    done = in_child("""
import inspect
import zmqmr.hook
zmqmr.hook.install()
import mrjob.conf, mrjob.options
assert type(mrjob.options.__loader__) is type(mrjob.conf.__loader__)
assert mrjob.options.__spec__.loader is mrjob.options.__loader__
print('def _add_runner_args' in inspect.getsource(mrjob.options))
""")

    assert (done.stdout, done.stderr) == ("True\n", "")


def test_the_own_switches_of_zmqmr_are_known():
    done = in_child("""
import zmqmr.hook
zmqmr.hook.install()
from mrjob.job import MRJob
from zmqmr.client.options import runner_options
job = MRJob(args=['-r', 'zeromq'])
print(all(hasattr(job.options, name) for name in runner_options()))
""")

    assert (done.stdout, done.stderr) == ("True\n", "")
