"""A run that is taken up with other inputs: what is finished is used again, under whatever name it is now."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

JOB = """
import os
from mrjob.job import MRJob


class Words(MRJob):
    def mapper(self, _, line):
        yield line, os.environ.get("WORD", "")

    def reducer(self, word, seen):
        if os.path.exists(os.environ["BROKEN"]):
            raise ValueError("not today")
        yield word, sorted(seen)


if __name__ == "__main__":
    Words.run()
"""


class Runs:
    """Runs of the job in a folder, the first of which fails in its reducer."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "job.py").write_text(JOB)
        (folder / "broken").touch()
        for name in ("m1", "m2"):
            (folder / name).write_text(f"{name}\n")

    def run(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "zmqmr.cli.run", "job.py", *args]
        environment = {
            **os.environ,
            "XDG_STATE_HOME": str(self.folder / "state"),
            "BROKEN": str(self.folder / "broken"),
            "ZMQMR_STATUS_PORT": "0",
            **variables,
        }
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60
        )

    def fail_first(self, *inputs: str, **variables: str) -> None:
        assert self.run(*inputs, **variables).returncode == 1
        (self.folder / "broken").unlink()


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_f37_an_input_that_comes_first_shifts_the_tasks_and_nothing_is_mixed_up(runs: Runs) -> None:
    runs.fail_first("m1", "m2")
    (runs.folder / "a0").write_text("a0\n")
    done = runs.run("--resume-from", _newest(runs), "a0", "m1", "m2")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ['"a0"\t[""]', '"m1"\t[""]', '"m2"\t[""]']


def test_f37_an_input_that_is_given_twice_is_taken_up(runs: Runs) -> None:
    runs.fail_first("m1", "m1")
    done = runs.run("--resume", "m1", "m1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == '"m1"\t["", ""]\n'


def test_f37_another_value_of_a_variable_that_tasks_inherit_runs_them_again(runs: Runs) -> None:
    runs.fail_first("m1", WORD="old")
    done = runs.run("--resume", "m1", WORD="new")
    assert done.returncode == 0, done.stderr
    assert done.stdout == '"m1"\t["new"]\n'


def _newest(runs: Runs) -> str:
    return max((runs.folder / "state" / "zmqmr" / "jobs").glob("*.json")).stem
