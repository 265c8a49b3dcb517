"""Jobs and surroundings that once surprised zmqmr: each gives what mrjob gives, or a clear refusal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from differential.harness import Result, plain_environ, run_stock, run_zmqmr

HEAD = """
import os
from mrjob.compat import jobconf_from_env
from mrjob.job import MRJob
from mrjob.step import MRStep
"""


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    path = tmp_path / "letters.txt"
    path.write_text("a 1\nb 2\na 3\na 4\n" * 5)
    return path


def _job(folder: Path, body: str) -> Path:
    path = folder / "job.py"
    path.write_text(f"{HEAD}\n{body}\nif __name__ == '__main__':\n    Job.run()\n")
    return path


STATEFUL_COMBINER = """
class Job(MRJob):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = {}
    def mapper(self, _, line):
        for word in line.split():
            yield (int(word) if word.isdigit() else word), 1
    def combiner(self, key, values):
        self.seen[key] = self.seen.get(key, 0) + sum(values)
        return ()
    def combiner_final(self):
        yield from self.seen.items()
    def reducer(self, key, values):
        yield str(key), sum(values)
"""

SETTING_AT_IMPORT = """
LIMIT = int(jobconf_from_env("my.limit", "0"))
class Job(MRJob):
    JOBCONF = {"my.limit": "5"}
    def mapper(self, _, line):
        yield LIMIT, 1
    def reducer(self, key, values):
        yield key, sum(values)
"""

JOBCONF_PER_STEP = """
class Job(MRJob):
    def tell(self):
        return [os.environ.get("my_step"), os.environ["mapreduce_task_ismap"]]
    def first(self, _, line):
        yield ["m1", self.tell()], 1
    def second(self, key, values):
        yield ["r1", self.tell()], sum(values)
        yield key, 1
    def third(self, key, value):
        yield key, value
        yield ["m2", self.tell()], 1
    def fourth(self, key, values):
        yield key, sum(values)
    def steps(self):
        return [
            MRStep(mapper=self.first, reducer=self.second, jobconf={"my.step": "ONE"}),
            MRStep(mapper=self.third, reducer=self.fourth, jobconf={"my.step": "TWO"}),
        ]
"""

HUGE_COUNTER = """
class Job(MRJob):
    def mapper(self, _, line):
        self.increment_counter("group", "huge", 10**18)
        yield line, 1
"""

COUNTS_WITHOUT_END = """
class Job(MRJob):
    def mapper(self, _, line):
        for number in range(60_000):
            self.increment_counter("group", f"{number}" + "n" * 5000)
        yield line, 1
"""

LONG_NAMES = """
class Job(MRJob):
    def mapper(self, _, line):
        self.increment_counter("g" * 5000, "n" * 5000 + line)
        yield line, 1
"""

PRINTS_AT_IMPORT = """
print("said while it is imported")
class Job(MRJob):
    def mapper(self, _, line):
        yield line, 1
"""


@pytest.mark.parametrize("values", ["1", "3", "1000000"])
def test_a_combiner_that_keeps_what_it_saw_counts_it_once(letters: Path, tmp_path: Path, values: str) -> None:
    job = _job(tmp_path, STATEFUL_COMBINER)
    ours = run_zmqmr(job, inputs=[letters], output=tmp_path / "out", environ={"ZMQMR_COMBINE_VALUES": values})
    assert ours.lines == run_stock(job, inputs=[letters]).lines


@pytest.mark.parametrize("body", [SETTING_AT_IMPORT, JOBCONF_PER_STEP])
def test_settings_are_those_of_the_step_and_there_at_import(letters: Path, tmp_path: Path, body: str) -> None:
    job = _job(tmp_path, body)
    ours = run_zmqmr(job, ["-D", "mapreduce.job.reduces=1"], [letters], tmp_path / "out")
    stock = run_stock(job, ["--num-cores", "1"], [letters], runner="local")
    assert ours.rc == stock.rc == 0, ours.stderr
    assert set(ours.lines) == set(stock.lines)


def test_a_counter_stops_where_messages_end(letters: Path, tmp_path: Path) -> None:
    ours = run_zmqmr(_job(tmp_path, HUGE_COUNTER), inputs=[letters], output=tmp_path / "out")
    assert ours.rc == 0, ours.stderr
    assert f"huge={2**63 - 1}" in ours.stderr


def test_a_job_that_counts_without_end_fails_with_the_reason(tmp_path: Path) -> None:
    line = tmp_path / "line.txt"
    line.write_text("one\n")
    ours = run_zmqmr(_job(tmp_path, COUNTS_WITHOUT_END), inputs=[line])
    assert ours.rc == 1
    last = ours.stderr.splitlines()[-1]
    assert (
        "the job has more than 10000 different counters; count fewer things or raise ZMQMR_MAX_COUNTERS"
        in last
    )


def test_names_of_counters_are_cut(letters: Path, tmp_path: Path) -> None:
    ours = run_zmqmr(_job(tmp_path, LONG_NAMES), inputs=[letters], output=tmp_path / "out")
    assert ours.rc == 0, ours.stderr
    count = len(letters.read_text().splitlines())
    assert f"\t{'g' * 1000}\n\t\t{'n' * 1000}={count}\n" in ours.stderr


def test_what_a_job_prints_while_it_is_imported_is_said_once(letters: Path, tmp_path: Path) -> None:
    ours = run_zmqmr(_job(tmp_path, PRINTS_AT_IMPORT), inputs=[letters])
    assert ours.stdout.count(b"said while it is imported") == 1


def test_make_runner_runs_the_class_it_was_called_on(letters: Path, tmp_path: Path) -> None:
    module = tmp_path / "two.py"
    module.write_text(
        f"{HEAD}\nimport sys\nimport zmqmr.register\n"
        "class A(MRJob):\n    def mapper(self, _, line):\n        yield 'A', 1\n"
        "class B(MRJob):\n    def mapper(self, _, line):\n        yield 'B', 1\n"
        "if __name__ == '__main__':\n    A.run()\n"
    )
    program = (
        "import sys, two\n"
        "job = two.B(['-r', 'zeromq', '--no-conf', sys.argv[1]])\n"
        "with job.make_runner() as runner:\n"
        "    runner.run()\n"
        "    print(sorted({key for key, _ in job.parse_output(runner.cat_output())}))\n"
    )
    command = [sys.executable, "-c", program, str(letters)]
    environ = plain_environ(
        {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    )
    ended = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60)
    assert ended.stdout == "['B']\n", ended.stderr


def _word_count(inputs: Path, args: list[str], environ: dict[str, str]) -> Result:
    return run_zmqmr("word_count", args, [inputs], environ=environ)


def test_a_job_that_no_coordinator_takes_is_refused_at_once(letters: Path) -> None:
    refused = _word_count(letters, [], {"ZMQMR_MAX_ATTEMPTS": "2000000"})
    assert refused.rc == 2 and "ZMQMR_MAX_ATTEMPTS must not exceed" in refused.stderr
    refused = _word_count(letters, ["--skip-bad-records", "-1"], {})
    assert refused.rc == 2 and "skip_bad_records" in refused.stderr
    refused = _word_count(letters, ["--skip-bad-records", "1", "-D", "mapreduce.map.maxattempts=2"], {})
    assert refused.rc == 2 and "--skip-bad-records needs 3 attempts" in refused.stderr
    refused = _word_count(letters, ["--cmdenv", os.fsdecode(b"X=\xff")], {})
    assert refused.rc == 2 and "Traceback" not in refused.stderr


def test_a_long_or_relative_temporary_directory_is_no_hindrance(letters: Path, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    assert _word_count(letters, [], {"TMPDIR": str(long)}).rc == 0
    relative = run_zmqmr("word_count", ["--local-tmp-dir", "here"], [letters], cwd=tmp_path)
    assert relative.rc == 0, relative.stderr


def test_a_file_named_like_a_library_in_the_current_directory_is_not_imported(
    letters: Path, tmp_path: Path
) -> None:
    (tmp_path / "zmq.py").write_text("raise RuntimeError('the wrong one')\n")
    ended = run_zmqmr(
        "word_count", ["--setup", "true", "--files", str(tmp_path / "zmq.py")], [letters], tmp_path / "out"
    )
    assert ended.rc == 0, ended.stderr


def test_output_that_cannot_be_written_is_no_wrong_usage(letters: Path) -> None:
    job = Path(__file__).parent.parent / "jobs" / "word_count.py"
    command = [sys.executable, "-m", "zmqmr.cli.run", str(job), "-q", str(letters)]
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=plain_environ(), timeout=60
        )
    assert ended.returncode == 1
    assert "standard output" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("switch", ["--python-bin", "--sh-bin"])
def test_a_program_that_is_not_there_is_refused_before_the_start(letters: Path, switch: str) -> None:
    refused = _word_count(letters, [switch, "no-such-program"], {})
    assert refused.rc == 2 and "no-such-program" in refused.stderr
