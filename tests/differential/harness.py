"""Runs one job with stock mrjob and with zmqmr, as their users do, and compares all that can be seen."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

JOBS = Path(__file__).parent.parent / "jobs"
DEADLINE_SECONDS = 60
# Small enough for a text of 20 KB to have many splits, partitions, runs, frames and combiner flushes.
SMALL = {
    "ZMQMR_SPLIT_BYTES": "3000",
    "ZMQMR_SPLIT_FLOOR_BYTES": "1500",
    "ZMQMR_PARTITION_BYTES": "4000",
    "ZMQMR_BLOCK_BYTES": "700",
    "ZMQMR_RUN_BYTES": "1500",
    "ZMQMR_FRAME_BYTES": "300",
    "ZMQMR_COMBINE_VALUES": "40",
}
_BLOCK = re.compile(r"^Counters: \d+\n((?:\t.*\n)*)", re.MULTILINE)

Counts = dict[str, dict[str, int]]  # group -> counter -> value
Lines = Callable[[Iterable[bytes]], Iterable[bytes]]


@dataclass(frozen=True)
class Result:
    """What a finished command left: its output, its counters by step (steps without any left out)."""

    rc: int
    stdout: bytes
    stderr: str
    files: dict[str, bytes] = field(default_factory=dict)  # of the output directory, by name

    @property
    def parts(self) -> dict[str, bytes]:
        return {name: data for name, data in self.files.items() if name.startswith("part-")}

    @property
    def lines(self) -> Counter[bytes]:
        data = [self.stdout, *self.parts.values()]
        assert all(not part or part.endswith(b"\n") for part in data), "an unfinished last line"
        return Counter(line for part in data for line in part.split(b"\n")[:-1])

    @property
    def counters(self) -> list[Counts]:
        return [_counts(block) for block in _BLOCK.findall(self.stderr)]


def _counts(block: str) -> Counts:
    counts: Counts = {}
    group = ""
    for line in block.splitlines():
        if line.startswith("\t\t"):
            name, value = line[2:].rsplit("=", 1)
            counts[group][name] = int(value)
        else:
            group = line[1:]
            counts[group] = {}
    return counts


def plain_environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without anything that would steer mrjob or zmqmr, and with `extra`."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("ZMQMR_") and k != "MRJOB_CONF"}
    environ |= {"ZMQMR_STATUS_PORT": "0"} | dict(extra or {})
    return environ


def run(
    command: Sequence[str | Path],
    environ: Mapping[str, str],
    stdin: bytes = b"",
    output: Path | None = None,
    cwd: Path | None = None,
) -> Result:
    """Run `command` to its end, at most DEADLINE_SECONDS."""
    ended = subprocess.run(
        [str(word) for word in command],
        env=dict(environ),
        input=stdin,
        capture_output=True,
        cwd=cwd,
        timeout=DEADLINE_SECONDS,
    )
    files = {}
    if output is not None and output.is_dir():
        files = {file.name: file.read_bytes() for file in sorted(output.iterdir()) if file.is_file()}
    return Result(ended.returncode, ended.stdout, ended.stderr.decode(errors="replace"), files)


def job_path(job: str | Path) -> Path:
    """The file of a job: of tests/jobs by its name, or the path itself."""
    return job if isinstance(job, Path) else JOBS / f"{job}.py"


def run_stock(
    job: str | Path,
    args: Sequence[str | Path] = (),
    inputs: Sequence[str | Path] = (),
    runner: str = "inline",
    stdin: bytes = b"",
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Result:
    """The job as mrjob's own `runner` runs it; output on stdout."""
    command = [sys.executable, job_path(job), "-r", runner, "--no-conf", *args, *inputs]
    return run(command, plain_environ({"ZMQMR_NO_HOOK": "1"} | dict(environ or {})), stdin, cwd=cwd)


def run_zmqmr(
    job: str | Path,
    args: Sequence[str | Path] = (),
    inputs: Sequence[str | Path] = (),
    output: Path | None = None,
    stdin: bytes = b"",
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Result:
    """The job as the zmqmr-run command runs it; output on stdout unless `output` names a directory."""
    where: list[str | Path] = ["--output-dir", output] if output else []
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "zmqmr.cli.run",
        job_path(job),
        "--no-conf",
        *where,
        *args,
        *inputs,
    ]
    return run(command, plain_environ(environ), stdin, output, cwd)


def compare(
    folder: Path,
    job: str | Path,
    args: Sequence[str | Path] = (),
    inputs: Sequence[str | Path] = (),
    runner: str = "inline",
    stdin: bytes = b"",
    environ: Mapping[str, str] | None = None,
    settings: Mapping[str, str] = SMALL,
    stock_args: Sequence[str | Path] = (),
    canonical: Lines = list,
    same_bytes: bool = True,
) -> Result:
    """Assert that zmqmr, on one core and on three, gives what stock mrjob gives; its result.

    Equal are the lines as a multiset, after `canonical`, and the counters; the part files of the two
    runs of zmqmr are the same bytes, unless `same_bytes` is false for a job that draws random numbers.
    """
    extra = dict(environ or {})
    with ThreadPoolExecutor(3) as pool:
        stock_run = pool.submit(run_stock, job, [*stock_args, *args], inputs, runner, stdin, extra)
        one_run, three_run = (
            pool.submit(
                run_zmqmr,
                job,
                ["--num-cores", cores, *args],
                inputs,
                folder / f"cores-{cores}",
                stdin,
                extra | dict(settings),
            )
            for cores in ("1", "3")
        )
    stock, one, three = stock_run.result(), one_run.result(), three_run.result()
    assert stock.rc == 0, stock.stderr
    for ours in (one, three):
        assert ours.rc == 0, ours.stderr
        assert ours.stdout == b"", ours.stderr
        wanted, got = (Counter(canonical(result.lines.elements())) for result in (stock, ours))
        assert (wanted - got, got - wanted) == ({}, {}), "missing and too many"
        assert ours.counters == stock.counters, ours.stderr
    assert not same_bytes or one.files == three.files
    return three
