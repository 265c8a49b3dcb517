"""Whole jobs through the runner class: results, counters, failures, interrupts, and what is left behind."""

import gzip
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
JOB = """
import sys, time
import zmqmr.register
from mrjob.job import MRJob
from mrjob.step import MRStep

class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--bad", default="")
        self.add_passthru_arg("--mark")
        self.add_passthru_arg("--nap", type=float, default=0)
        self.pass_arg_through("--runner")

    def words(self, _, line):
        if self.options.bad and self.options.bad in line:
            print("last words", file=sys.stderr)
            raise ValueError("no good")
        if self.options.nap:
            open(self.options.mark, "w").close()
            time.sleep(self.options.nap)
        for word in line.split():
            self.increment_counter("seen", self.options.runner)
            yield word, 1

    def total(self, word, ones):
        self.increment_counter("totals", "words")
        yield word, sum(ones)

    def by_count(self, word, count):
        yield count, word

    def sort_words(self, count, words):
        yield count, sorted(words)

    def steps(self):
        return [MRStep(mapper=self.words, combiner=self.total, reducer=self.total),
                MRStep(mapper=self.by_count, reducer=self.sort_words)]

if __name__ == "__main__":
    {main}
"""
TEXT = b"a b c\nb c\nc d\n"
RESULT = [b"1\t" + b'["a", "d"]\n', b"2\t" + b'["b"]\n', b"3\t" + b'["c"]\n']


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Keyword arguments of subprocess that run the job, or a program with the job in it, on TEXT."""
    (tmp_path / "in.txt").write_bytes(TEXT)
    (tmp_path / "tmp").mkdir()

    def make(*args: str, main: str = "Job.run()") -> dict[str, Any]:
        (tmp_path / "job.py").write_text(JOB.replace("{main}", main))
        words = [sys.executable, f"{tmp_path}/job.py", "-r", "zeromq", "--no-conf"]
        tmp = ["--local-tmp-dir", f"{tmp_path}/tmp", *args, f"{tmp_path}/in.txt"]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("ZMQMR_")}
        environ |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "ZMQMR_STATUS_PORT": "0"}
        return {"args": [*words, *tmp], "env": environ, "stdin": subprocess.DEVNULL}

    return make


def run(command: dict[str, Any]) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(**command, capture_output=True, timeout=60)


def left_over(tmp_path: Path) -> list[str]:
    """What is still there of a job that has ended: files in its temporary directory, and processes."""
    processes = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if str(tmp_path).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                processes.append(pid)
        except OSError:
            continue  # it has ended meanwhile
    return [*os.listdir(tmp_path / "tmp"), *processes]


def test_output_goes_to_stdout_and_nothing_is_left(command: Any, tmp_path: Path):
    ended = run(command())
    assert ended.returncode == 0, ended.stderr
    assert sorted(ended.stdout.splitlines(keepends=True)) == RESULT
    assert left_over(tmp_path) == []
    assert re.findall(rb"Step (\d) of 2 \w+: \d+ tasks? done", ended.stderr)[-1] == b"2"
    assert re.findall(rb"\t\t\w+=\d+", ended.stderr) == [b"\t\tzeromq=7", b"\t\twords=8"]


def test_an_output_directory_gets_parts_and_the_mark_and_stdout_nothing(command: Any, tmp_path: Path):
    ended = run(command("-o", f"{tmp_path}/out", "-D", "mapreduce.job.reduces=3"))
    assert (ended.returncode, ended.stdout) == (0, b""), ended.stderr
    names = sorted(os.listdir(tmp_path / "out"))
    assert names == ["_SUCCESS", "part-00000", "part-00001", "part-00002"]
    assert sorted(b for name in names for b in (tmp_path / "out" / name).open("rb")) == RESULT
    assert left_over(tmp_path) == []


def test_compressed_parts_are_read_back_for_stdout(command: Any, tmp_path: Path):
    ended = run(command("-o", f"{tmp_path}/out", "--cat-output", "-D", "mapred.output.compress=true"))
    assert ended.returncode == 0, ended.stderr
    assert sorted(ended.stdout.splitlines(keepends=True)) == RESULT
    assert sorted(gzip.decompress((tmp_path / "out/part-00000.gz").read_bytes()).splitlines(True)) == RESULT


def test_steps_keep_their_output_where_it_is_asked_for(command: Any, tmp_path: Path):
    ended = run(command("--step-output-dir", f"{tmp_path}/steps"))
    assert ended.returncode == 0, ended.stderr
    assert sorted(os.listdir(tmp_path / "steps")) == ["0000", "_SUCCESS"]
    assert sorted(os.listdir(tmp_path / "steps/0000")) == ["_SUCCESS", "part-00000"]
    lines = (tmp_path / "steps/0000/part-00000").read_bytes().splitlines()
    assert sorted(lines) == [b'"a"\t1', b'"b"\t2', b'"c"\t3', b'"d"\t1']


def test_a_program_reads_output_and_counters(command: Any, tmp_path: Path):
    main = (
        "job = Job()\n"
        "    with job.make_runner() as runner:\n"
        "        runner.run()\n"
        "        print(sorted(job.parse_output(runner.cat_output())), runner.counters())"
    )
    ended = run(command("--task-runner-alias", "hadoop", main=main))
    counters = [{"seen": {"hadoop": 7}, "totals": {"words": 8}}, {}]
    assert ended.returncode == 0, ended.stderr
    expected = f"{[(1, ['a', 'd']), (2, ['b']), (3, ['c'])]} {counters}"
    assert ended.stdout.decode().strip() == expected


def test_a_failure_is_explained_and_leaves_no_output(command: Any, tmp_path: Path):
    ended = run(command("--bad", "b c", "-o", f"{tmp_path}/out", "-D", "mapreduce.map.maxattempts=2"))
    said = ended.stderr.decode()
    assert ended.returncode == 1
    for part in (
        "run again (attempt 1 of 2",
        "Attempt 2 of 2",
        "ValueError: no good",
        f"while reading {tmp_path}/in.txt at byte 0",
        "record: 'a b c'",
        'raise ValueError("no good")',
        "last words",
        "Step 1 of 2 failed",
    ):
        assert part in said
    assert said.count("Traceback") == 1
    assert not (tmp_path / "out").exists()
    assert left_over(tmp_path) == []


def test_a_program_gets_a_failed_step(command: Any, tmp_path: Path):
    main = (
        "from mrjob.step import StepFailedException\n"
        "    try:\n"
        "        with Job().make_runner() as runner: runner.run()\n"
        "    except StepFailedException as error: print(error.step_num, error.num_steps, error.reason)"
    )
    ended = run(command("--bad", "c d", main=main))
    assert ended.stdout.decode().startswith("0 2 "), ended.stderr
    assert b"ValueError: no good" in ended.stdout


def test_quiet_is_quiet_about_a_failed_job(command: Any):
    ended = run(command("-q", "--bad", "b c"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, b"", b"")


def test_what_failed_is_kept_where_cleanup_says_so(command: Any, tmp_path: Path):
    run(command("--bad", "b c", "--cleanup-on-failure", "NONE"))
    assert len(left_over(tmp_path)) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_told_to_end_leaves_nothing(command: Any, tmp_path: Path, number: signal.Signals):
    args = command("--nap", "60", "--mark", f"{tmp_path}/mark", "-o", f"{tmp_path}/out")
    with subprocess.Popen(**args, stderr=subprocess.PIPE) as job:
        assert job.stderr is not None
        while not (tmp_path / "mark").exists():
            assert job.poll() is None
            time.sleep(0.02)
        job.send_signal(number)
        said = job.stderr.read()
        assert job.wait(30) == 128 + number
    assert b"interrupted" in said and b"Traceback" not in said
    assert not (tmp_path / "out").exists()
    deadline = time.monotonic() + 10
    while left_over(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left_over(tmp_path) == []


def test_setup_leaves_no_lock_behind(command: Any, tmp_path: Path):
    before = set(os.listdir("/tmp"))
    ended = run(command("--setup", "touch made"))
    assert ended.returncode == 0, ended.stderr
    assert [name for name in set(os.listdir("/tmp")) - before if name.startswith("wrapper.lock")] == []
    assert left_over(tmp_path) == []
