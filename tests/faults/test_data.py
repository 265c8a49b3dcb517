"""Data that is damaged, lost, has no room, or has an unusual shape."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from differential.harness import JOBS, Result
from faults.nemesis import MANY_TASKS, FaultPlace, Run, chance, oracle, peak_memory
from process.places import wait_until

MIB = 1024**2
# Map tasks begin slowly after the first ones, so that there are runs on the drive while they still map.
SLOW = ["--pause", "0.01"]


def _await_runs(run: Run, count: int = 2) -> list[Path]:
    """Sorted runs, as soon as there are some; the reducers have not begun."""
    wait_until(lambda: len(_finished_runs(run)) >= count or run.process.poll() is not None, run.story)
    assert run.process.poll() is None, run.story()
    return _finished_runs(run)


def _await_spools(run: Run, count: int = 2) -> list[Path]:
    """Kept spools, as soon as there are some; tasks still map."""
    wait_until(lambda: len(run.spilled(".spool")) >= count or run.process.poll() is not None, run.story)
    assert run.process.poll() is None, run.story()
    return run.spilled(".spool")


def _finished_runs(run: Run) -> list[Path]:
    """Runs that nothing writes to any more."""
    return run.spilled(".run")


def _assert_never_wrong(run: Run, expected: Result, *says: object) -> None:
    """It gives the right result, or fails and says why."""
    if run.end().rc == 0:
        run.assert_same_as(expected)
    else:
        run.assert_failed(*says)


# --- intermediate data -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", [201, 202, 203])
def test_f20_a_flipped_bit_in_a_sorted_run_is_found_and_repaired(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result, seed: int
) -> None:
    random = chance(seed)
    run = Run(place, tmp_path / "out", [words], SLOW)
    for path in _await_runs(run):
        content = bytearray(path.read_bytes())
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        path.write_bytes(content)
    run.assert_same_as(expected)


@pytest.mark.parametrize("seed", [205, 206, 207])
def test_f20_a_flipped_bit_in_a_spool_is_found_and_repaired(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result, seed: int
) -> None:
    """Of records that are not sorted yet: by the time it strikes, most runs are not begun."""
    random = chance(seed)
    run = Run(place, tmp_path / "out", [words], SLOW)
    for path in _await_spools(run):
        content = bytearray(path.read_bytes())
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        path.write_bytes(content)
    run.assert_same_as(expected)


def test_f20_a_run_cut_short_is_made_again(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    run = Run(place, tmp_path / "out", [words], SLOW)
    path = _await_runs(run)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))
    run.assert_same_as(expected)


@pytest.mark.parametrize("what", ["a run", "a spool"])
def test_f21_a_spill_file_deleted_during_the_shuffle_is_made_again(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result, what: str
) -> None:
    run = Run(place, tmp_path / "out", [words], SLOW)
    path = _await_runs(run)[0] if what == "a run" else _await_spools(run)[0]
    path.unlink()
    run.assert_same_as(expected)


@pytest.mark.parametrize("times", [1, 99], ids=["once", "always"])
def test_f46_records_of_two_attempts_that_yield_otherwise_are_never_mixed(
    place: FaultPlace, words: Path, tmp_path: Path, times: int
) -> None:
    """A spool is lost whose records are sorted in one partition and not in the other: its task runs again.
    Once, the job begins anew and succeeds; when that goes on, it fails and says why."""
    job = tmp_path / "moody.py"
    job.write_text(MOODY)
    run = Run(place, tmp_path / "out", [words], settings=MANY_TASKS | {"ZMQMR_RUN_BYTES": "15000"}, job=job)
    lost: list[Path] = []

    def lose_spools() -> bool:
        with suppress(OSError):  # the job begins anew meanwhile
            spools = sorted(run.spilled(".spool"), key=lambda each: each.stat().st_mtime_ns)
            if spools and len(lost) < times and _finished_runs(run):
                spools[0].unlink()
                lost.append(spools[0])
        return len(lost) >= times or run.process.poll() is not None

    wait_until(lose_spools, run.story)
    if times > 1:
        run.assert_failed("yields other records each time it is run", "make the job deterministic")
        return
    result = run.end()
    assert result.rc == 0, result.stderr
    assert "is run again" in result.stderr
    found = [json.loads(line.split(b"\t")[1]) for line in result.lines.elements()]
    moods = {(task, mood) for counts in found for task, mood, _ in counts}
    assert len({task for task, _ in moods}) == len(moods) > 2, "one mood for each task"
    lines = len(words.read_text().splitlines())
    assert [sum(count for _, _, count in counts) for counts in found] == [lines] * KEYS
    place.assert_nothing_left()


KEYS = 6
MOODY = """
import os, random, time
from collections import Counter
from mrjob.job import MRJob


class Job(MRJob):
    def mapper_init(self):
        self.mood = random.SystemRandom().randrange(10**9)

    def mapper(self, _, line):
        time.sleep(0.005)
        for key in range(6):
            yield key, [os.environ["mapreduce_task_id"], f"{self.mood:09}"]  # as many bytes each time

    def reducer(self, key, values):
        yield key, [[*value, count] for value, count in Counter(map(tuple, values)).items()]


if __name__ == "__main__":
    Job.run()
"""


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_f20_a_damaged_part_file_between_steps_never_gives_another_result(
    place: FaultPlace, words: Path, tmp_path: Path, damage: str
) -> None:
    """A step that runs a command reads the part files of the one before."""
    random = chance(204)
    job = tmp_path / "two_steps.py"
    job.write_text(TWO_STEPS)
    run = Run(place, tmp_path / "out", [words], job=job)
    wait_until(lambda: _parts(run) or run.process.poll() is not None, run.story)
    path = _parts(run)[0]
    content = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        content[random.randrange(len(content))] ^= 1
        path.write_bytes(content if damage == "flip" else b"")
    _assert_never_wrong(run, oracle([words], job, runner="local"), path.name)


def _parts(run: Run) -> list[Path]:
    """The part files of the first step, once two tasks of many are done; empty ones left out."""
    parts = [path for path in run.spilled("") if path.parent.name == "stage-0" and "part-" in path.name]
    return sorted(path for path in parts if path.stat().st_size) if len(parts) > 1 else []


TWO_STEPS = """
import time
from mrjob.job import MRJob
from mrjob.step import MRStep


class Job(MRJob):
    def split(self, _, line):
        time.sleep(0.005)
        for word in line.split():
            yield word, 1

    def steps(self):
        return [MRStep(mapper=self.split), MRStep(mapper_cmd="cat"), MRStep(reducer=self.add)]

    def add(self, word, ones):
        yield word, sum(ones)


if __name__ == "__main__":
    Job.run()
"""


# --- sort ------------------------------------------------------------------------------------


def _shim(folder: Path, script: str) -> dict[str, str]:
    """Settings with a `sort` first on PATH that runs `script`, then the real one."""
    folder.mkdir()
    shim = folder / "sort"
    shim.write_text(f'#!/bin/sh\n{script}\nexec {shutil.which("sort")} "$@"\n')
    shim.chmod(0o755)
    return MANY_TASKS | {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("how", ["kill -9 $$", "echo 'sort: no luck' >&2; exit 2"], ids=["killed", "exits 2"])
def test_f22_a_sort_that_fails_twice_costs_no_more_than_attempts(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result, how: str
) -> None:
    """mkdir is atomic: exactly the first two fail, however many there are at a time."""
    flags = tmp_path / "flag"
    script = f"for n in 1 2; do if mkdir {flags}-$n 2>/dev/null; then {how}; fi; done"
    run = Run(place, tmp_path / "out", [words], settings=_shim(tmp_path / "bin", script))
    run.assert_same_as(expected)
    assert Path(f"{flags}-2").exists()


@pytest.mark.parametrize(
    ("how", "says"),
    [("kill -9 $$", "sort failed"), ("echo 'sort: no luck' >&2; exit 2", "no luck")],
    ids=["killed", "exits 2"],
)
def test_f22_a_sort_that_always_fails_ends_the_job(
    place: FaultPlace, words: Path, tmp_path: Path, how: str, says: str
) -> None:
    run = Run(place, tmp_path / "out", [words], settings=_shim(tmp_path / "bin", how))
    run.assert_failed(says)


def test_f22_a_merge_that_dies_half_way_never_gives_a_short_result(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    """It writes 200 bytes, whole lines or not, then dies, once."""
    real = shutil.which("sort")
    script = (
        f'case "$*" in *--merge*) if mkdir {tmp_path}/flag 2>/dev/null; then'
        f' {real} "$@" | head -c 200; kill -9 $$; fi;; esac'
    )
    run = Run(place, tmp_path / "out", [words], settings=_shim(tmp_path / "bin", script))
    run.assert_same_as(expected)
    assert (tmp_path / "flag").exists()


def test_f22_no_sort_at_all_is_said_before_anything_is_done(
    place: FaultPlace, words: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    run = Run(place, tmp_path / "out", [words], settings={"PATH": str(tmp_path / "bin")})
    run.assert_failed("sort", "PATH", code=2)
    assert run.executions() == []


# --- full drives -----------------------------------------------------------------------------


def _big_text(path: Path, lines: int = 400) -> Path:
    path.write_text("".join(f"w{n} {'y' * 4000}{n} end\n" for n in range(lines)))
    return path


def test_f18_a_full_spill_drive_fails_the_job_by_name_and_is_empty_afterwards(
    small_disk: Path, tmp_path: Path
) -> None:
    text = _big_text(tmp_path / "big.txt", 2500)
    run = Run(FaultPlace(small_disk, tmp_path), tmp_path / "out", [text], settings={})
    run.assert_failed(small_disk, "o space left")


def test_f18_a_spill_drive_with_room_again_lets_the_job_go_on(small_disk: Path, tmp_path: Path) -> None:
    """Something else fills the drive for a while; the attempts that fail meanwhile are run again."""
    text = _big_text(tmp_path / "big.txt")
    ballast = tmp_path / "drive" / "ballast"
    args = ["-D", "mapreduce.map.maxattempts=9", "-D", "mapreduce.reduce.maxattempts=9"]
    args += ["--pause", "0.003"]
    settings = {"ZMQMR_SPLIT_FLOOR_BYTES": "200000", "ZMQMR_PARTITION_BYTES": "400000"}
    run = Run(FaultPlace(small_disk, tmp_path), tmp_path / "out", [text], args, settings)
    run.await_executions(1)
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    wait_until(lambda: "o space left" in run.said() or run.process.poll() is not None, run.story)
    ballast.unlink(missing_ok=True)
    run.assert_same_as(oracle([text]))


def test_f19_a_full_output_drive_fails_the_job_by_name_and_leaves_no_part(
    place: FaultPlace, small_disk: Path, tmp_path: Path
) -> None:
    text = _big_text(tmp_path / "big.txt", 2500)
    run = Run(place, small_disk / "out", [text], settings={})
    run.assert_failed(small_disk, "o space left")
    assert list(small_disk.rglob("*")) == []


# --- inputs of unusual shapes ----------------------------------------------------------------


def test_f41_a_long_line_is_named_or_works_with_a_higher_cap(place: FaultPlace, tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_bytes(b"short one\n" + b"x" * 3_000_000 + b"\nlast one\n")
    low = Run(place, tmp_path / "low", [text], settings={"ZMQMR_MAX_LINE_BYTES": "1000000"})
    low.assert_failed(text, "ZMQMR_MAX_LINE_BYTES", "10")
    high = Run(place, tmp_path / "high", [text], settings={"ZMQMR_MAX_LINE_BYTES": "4000000"})
    high.assert_same_as(oracle([text]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\n\n\n",
        b"no newline",
        b"cr\r\nlf\r\n",
        "\u00e4 \u4e2d\n".encode(),
        b"tab\there\nnul\0here\n",
    ],
    ids=["empty", "a newline", "newlines", "no newline", "crlf", "not ascii", "tab and nul"],
)
def test_f42_f45_odd_little_files(place: FaultPlace, tmp_path: Path, content: bytes) -> None:
    text, empty = tmp_path / "odd.txt", tmp_path / "empty.txt"
    text.write_bytes(content)
    empty.write_bytes(b"")
    settings = {"ZMQMR_SPLIT_BYTES": "3", "ZMQMR_SPLIT_FLOOR_BYTES": "3", "ZMQMR_BLOCK_BYTES": "2"}
    Run(place, tmp_path / "out", [text, empty], settings=settings).assert_same_as(oracle([text, empty]))


@pytest.mark.parametrize("job", ["echo_bytes"])
def test_f45_bytes_that_are_no_text_pass_unchanged(place: FaultPlace, tmp_path: Path, job: str) -> None:
    random = chance(45)
    text = tmp_path / "bytes"
    text.write_bytes(random.randbytes(5000).replace(b"\n", b"\t") + b"\n" + random.randbytes(3000) + b"\n")
    Run(place, tmp_path / "out", [text], job=JOBS / f"{job}.py").assert_same_as(
        oracle([text], JOBS / f"{job}.py")
    )


def test_f43_a_skewed_key_fills_nobodys_memory(place: FaultPlace, tmp_path: Path) -> None:
    """Half of 400 000 records have one key: 20 MB that only pass through."""
    text = tmp_path / "skewed.txt"
    line = "the " + " ".join(f"the w{n}" for n in range(100)) + "\n"
    text.write_text(line * 2000)
    settings = {"ZMQMR_RUN_BYTES": str(MIB), "ZMQMR_HOLD_BYTES": str(4 * MIB), "ZMQMR_SORT_MEMORY": "4M"}
    run = Run(place, tmp_path / "out", [text], ["-D", "mapreduce.job.reduces=4"], settings)
    peaks = peak_memory(run)
    run.assert_same_as(oracle([text]))
    assert 0 < max(peaks.values()) < 80 * MIB, peaks


@pytest.mark.parametrize("reduces", [1, 40])
def test_f44_any_number_of_reducers(place: FaultPlace, tmp_path: Path, reduces: int) -> None:
    text = tmp_path / "few.txt"
    text.write_text("one two\ntwo\n")
    args = ["-D", f"mapreduce.job.reduces={reduces}"]
    result = Run(place, tmp_path / "out", [text], args).assert_same_as(oracle([text]))
    assert len(result.parts) == reduces


@pytest.mark.parametrize("job", ["map_only", "reduce_only", "nothing_out"])
def test_f44_jobs_with_one_kind_of_task(place: FaultPlace, tmp_path: Path, job: str) -> None:
    text = tmp_path / "pairs.txt"
    text.write_text("".join(f'"k{n % 7}"\t{n}\n' for n in range(200)))
    path = JOBS / f"{job}.py"
    Run(place, tmp_path / "out", [text], job=path).assert_same_as(oracle([text], path))
