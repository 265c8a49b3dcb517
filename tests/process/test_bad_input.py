"""Whatever is wrong with a run: one clear message, the documented exit status, nothing half-written."""

import bz2
import gzip
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import zstandard
from differential.harness import JOBS, SMALL, Result, job_path, run, run_zmqmr
from process.places import Place

FAILED, USAGE = 1, 2


def check(result: Result, code: int, *says: object) -> None:
    """Assert that the run failed with `code`, said all of `says`, showed no insides and left no output."""
    assert result.rc == code, result.stderr
    missing = [str(part) for part in says if str(part) not in result.stderr]
    assert not missing, f"{missing} not in:\n{result.stderr}"
    frames = [line for line in result.stderr.splitlines() if line.lstrip().startswith("File ")]
    assert not any("/zmqmr/" in frame for frame in frames), result.stderr
    assert result.stdout == b""
    assert result.files == {}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


# --- inputs ----------------------------------------------------------------------------------


def test_a_missing_file(place: Place, out: Path, words: Path) -> None:
    environ = place.environ()
    result = run_zmqmr("word_count", [], [words, "/no/such/file.txt"], out, environ=environ)
    check(result, USAGE, "/no/such/file.txt")
    assert not out.exists()
    place.assert_nothing_left()


def test_a_pattern_that_matches_nothing(out: Path, tmp_path: Path) -> None:
    check(run_zmqmr("word_count", [], [tmp_path / "*.log"], out), USAGE, tmp_path / "*.log")


def test_a_folder_without_files(out: Path, tmp_path: Path) -> None:
    (tmp_path / "hollow" / "deeper").mkdir(parents=True)
    check(run_zmqmr("word_count", [], [tmp_path / "hollow"], out), USAGE, tmp_path / "hollow")


def test_an_unreadable_file(out: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("words")
    secret.chmod(0)
    command: list[str | Path] = [sys.executable, "-m", "zmqmr.cli.run", job_path("word_count")]
    command += ["--no-conf", "-o", out, secret]
    if os.geteuid() == 0:  # root reads everything, unless it gives that power away
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--", *command]
    check(run(command, os.environ, output=out), USAGE, secret, "ermission")


def test_an_empty_input_is_no_error(out: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    result = run_zmqmr("word_count", [], [empty], out)
    assert result.rc == 0, result.stderr
    assert not result.lines
    assert "_SUCCESS" in result.files


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def _packed(tmp_path: Path, suffix: str, words: Path) -> tuple[Path, bytes]:
    data = PACKED[suffix](os.urandom(2000).hex().encode() + b"\n" + words.read_bytes())
    return tmp_path / f"words.{suffix}", data


@pytest.mark.parametrize("suffix", PACKED)
def test_a_compressed_file_that_ends_early(out: Path, tmp_path: Path, words: Path, suffix: str) -> None:
    path, data = _packed(tmp_path, suffix, words)
    path.write_bytes(data[:-9])
    check(run_zmqmr("word_count", [], [path], out), FAILED, path)


@pytest.mark.parametrize("suffix", PACKED)
def test_a_compressed_file_with_wrong_bytes_in_it(
    out: Path, tmp_path: Path, words: Path, suffix: str
) -> None:
    path, data = _packed(tmp_path, suffix, words)
    middle = len(data) // 2
    wrong = bytes(255 - byte for byte in data[middle : middle + 40])
    path.write_bytes(data[:middle] + wrong + data[middle + 40 :])
    check(run_zmqmr("word_count", [], [path], out), FAILED, path)


@pytest.mark.parametrize("suffix", PACKED)
def test_a_file_whose_name_promises_a_compression(out: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plain.{suffix}"
    path.write_text("these are plain words\n" * 10)
    check(run_zmqmr("word_count", [], [path], out), FAILED, path)


def test_a_line_over_the_cap(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(b"short\n" + b"x" * 5000 + b"\nshort\n")
    environ = {"ZMQMR_MAX_LINE_BYTES": "4096"}
    check(run_zmqmr("word_count", [], [path], out, environ=environ), FAILED, path, "ZMQMR_MAX_LINE_BYTES", 6)


# --- where the output goes -------------------------------------------------------------------


def test_an_output_folder_in_use(out: Path, words: Path) -> None:
    out.mkdir()
    (out / "mine").write_text("precious")
    result = run_zmqmr("word_count", [], [words], out)
    assert result.rc == USAGE, result.stderr
    assert str(out) in result.stderr
    assert result.files == {"mine": b"precious"}


def test_an_output_folder_that_is_a_file(out: Path, words: Path) -> None:
    out.write_text("precious")
    check(run_zmqmr("word_count", [], [words], out), USAGE, out)
    assert out.read_text() == "precious"


def test_no_space_for_intermediate_data(small_disk: Path, out: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("line\n" * 40)
    environ = {"TMPDIR": str(small_disk)}
    result = run_zmqmr("much_output", ["--shuffle"], [lines], out, environ=environ)
    check(result, FAILED, small_disk, "no space left")
    assert list(small_disk.iterdir()) == []


def test_no_space_for_the_output(small_disk: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("line\n" * 40)
    out = small_disk / "out"
    result = run_zmqmr("much_output", [], [lines], out)
    check(result, FAILED, small_disk, "no space left")
    assert not out.exists() or list(out.rglob("*")) == []


# --- the machine -----------------------------------------------------------------------------


def test_no_sort_on_the_path(place: Place, out: Path, words: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    environ = place.environ(PATH=str(tmp_path / "bin"))
    result = run_zmqmr("word_count", [], [words], out, environ=environ)
    check(result, USAGE, "sort", "PATH")
    place.assert_nothing_left()


def test_a_sort_that_fails(place: Place, out: Path, words: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    sort = tmp_path / "bin" / "sort"
    sort.write_text("#!/bin/sh\necho 'sort: the drive is on fire' >&2\nexit 2\n")
    sort.chmod(0o755)
    environ = place.environ(PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    check(run_zmqmr("word_count", [], [words], out, environ=environ), FAILED, "the drive is on fire")
    place.assert_nothing_left()


def test_a_setting_that_does_not_exist(out: Path, words: Path) -> None:
    result = run_zmqmr("word_count", [], [words], out, environ={"ZMQMR_NO_SUCH": "1"})
    check(result, USAGE, "ZMQMR_NO_SUCH")


# --- the job file ----------------------------------------------------------------------------

JOB = """from mrjob.job import MRJob


class {}(MRJob):
    def mapper(self, _, line):
        yield line, 1


"""


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module\n", ["No module named 'no_such_module'", "line 1"]),
        ("class Job(:\n", ["SyntaxError", "line 1"]),
        ("x = 1\n", ["MRJob"]),
        (JOB.format("A") + JOB.format("B"), ["A, B"]),
        ("1 / 0\n", ["ZeroDivisionError", "line 1"]),
        (JOB.format("A").replace("mapper", "nothing") + "A.run()\n", ["no steps"]),
        ("\0", ["null bytes"]),
    ],
    ids=["import", "syntax", "no job", "two jobs", "raises", "no steps", "binary"],
)
def test_a_job_file_that_is_no_job(
    out: Path, words: Path, tmp_path: Path, source: str, says: Sequence[str]
) -> None:
    job = tmp_path / "wrong.py"
    job.write_text(source)
    check(run_zmqmr(job, [], [words], out), USAGE, *says)
    assert not out.exists()


def test_a_missing_job_file(out: Path, words: Path, tmp_path: Path) -> None:
    check(run_zmqmr(tmp_path / "no.py", [], [words], out), USAGE, tmp_path / "no.py")


def test_an_unknown_switch(out: Path, words: Path) -> None:
    check(run_zmqmr("word_count", ["--no-such-switch"], [words], out), USAGE, "--no-such-switch")


def test_an_upload_that_is_not_there(out: Path, words: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.txt"
    check(run_zmqmr("word_count", ["--files", missing], [words], out), USAGE, missing)


def test_a_setup_command_that_fails(out: Path, words: Path) -> None:
    setup = ["--setup", "echo no luck >&2; exit 7"]
    check(run_zmqmr("word_count", setup, [words], out), FAILED, "no luck", "7")


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("SparkStep", "spark=lambda *_: None"),
        ("SparkScriptStep", "script='x.py'"),
        ("JarStep", "jar='x.jar'"),
    ],
)
def test_a_step_that_needs_hadoop_or_spark(
    out: Path, words: Path, tmp_path: Path, kind: str, arguments: str
) -> None:
    job = tmp_path / "foreign.py"
    job.write_text(
        f"from mrjob.job import MRJob\nfrom mrjob.step import {kind}\n\n\nclass Job(MRJob):\n"
        f"    def steps(self):\n        return [{kind}({arguments})]\n\n\n"
        "if __name__ == '__main__':\n    Job.run()\n"
    )
    result = run_zmqmr(job, [], [words], out)
    check(result, USAGE, "-r ")
    assert not out.exists()


# --- what happens in a task ------------------------------------------------------------------


@pytest.mark.parametrize("where", ["mapper", "combiner", "reducer"])
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("exception", ["ValueError: this record is bad", "in exception"]),
        ("sys_exit", ["gave up on purpose"]),
        ("sys_exit_0", ["exit"]),
        ("exit_0", ["exit"]),
        ("exit_3", ["3"]),
        ("segfault", ["SIGSEGV"]),
        ("kill_itself", ["SIGKILL"]),
        ("abort", ["SIGABRT"]),
        ("keyboard_interrupt", ["KeyboardInterrupt"]),
        ("unprintable", ["Odd"]),
        ("no_memory", ["MemoryError"]),
    ],
)
def test_a_task_that_ends_badly(
    place: Place, out: Path, tmp_path: Path, where: str, how: str, says: Sequence[str]
) -> None:
    path = tmp_path / "words.txt"
    path.write_text("one line\ntwo bad lines\n")
    twice = ["-D", "mapreduce.map.maxattempts=2", "-D", "mapreduce.reduce.maxattempts=2"]
    args = ["--how", how, "--where", where, *twice]
    result = run_zmqmr("ends_badly", args, [path], out, environ=place.environ())
    check(result, FAILED, *says)
    if where == "mapper":
        assert str(path) in result.stderr
    place.assert_nothing_left()


def test_a_record_that_the_protocol_cannot_read(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text('"a"\t1\n"b"\t2\n"c"\tnot json \x1b[31m\n"d"\t4\n')
    result = run_zmqmr("reduce_only", [], [path], out)
    says = [path, "not json"]
    check(result, FAILED, *says)
    mapped = run_zmqmr("equal_keys", [], [path], out)
    check(mapped, FAILED, *says, "JSONDecodeError", 12)
    assert "\x1b" not in result.stderr + mapped.stderr


def test_the_offset_is_that_of_the_record_in_its_own_split(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    good = b"".join(b'"key %d"\t%d\n' % (n, n) for n in range(1000))
    path.write_bytes(good + b'"bad"\tnot json\n' + good)
    check(run_zmqmr("equal_keys", [], [path], out, environ=SMALL), FAILED, path, len(good), "not json")


@pytest.mark.parametrize("shape", ["mapper", "reducer"])
def test_a_command_that_fails(out: Path, words: Path, tmp_path: Path, shape: str) -> None:
    job = tmp_path / "commands.py"
    job.write_text(
        "from mrjob.job import MRJob\n\n\nclass Job(MRJob):\n"
        f"    def {shape}_cmd(self):\n"
        "        return \"sh -c 'cat >/dev/null; echo so sad >&2; exit 5'\"\n\n\n"
        "if __name__ == '__main__':\n    Job.run()\n"
    )
    check(run_zmqmr(job, [], [words], out), FAILED, "so sad", "5")


def test_an_exception_of_a_job_class_is_the_users_own(out: Path, words: Path, tmp_path: Path) -> None:
    job = tmp_path / "raises.py"
    job.write_text(
        "from mrjob.job import MRJob\n\n\nclass Job(MRJob):\n    def steps(self):\n"
        "        raise LookupError('no steps today')\n\n\nif __name__ == '__main__':\n    Job.run()\n"
    )
    result = run_zmqmr(job, [], [words], out)
    assert result.rc != 0
    assert "no steps today" in result.stderr
    assert not out.exists()


def test_the_jobs_of_these_tests_work_when_nothing_is_wrong(out: Path, words: Path) -> None:
    assert JOBS.is_dir()
    result = run_zmqmr("ends_badly", ["--how", "exception"], [words], out)
    assert result.rc == 0, result.stderr
    assert result.lines
