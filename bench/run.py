"""Compare zmqmr with other systems: the same jobs on the same data, one run after the other.

    python bench/run.py
    python bench/run.py --jobs wc,group --systems zmqmr,sort --size 256M --repeat 3
    python bench/run.py --jobs wc --profile

Ends with 1 when a run fails or when two systems' outputs differ. docs/performance.md says what the
numbers mean.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.data import make  # noqa: E402
from bench.measure import Usage, measure  # noqa: E402
from bench.systems import JOBS, SYSTEMS, System  # noqa: E402

BASE = "zmqmr"  # ratios are to this system
UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}


class RunFailed(Exception):
    """A system did not finish a job; the message holds the end of what it wrote."""


@dataclass(frozen=True)
class Run:
    """One run of one job on one system."""

    job: str
    system: str
    usage: Usage
    md5: str  # of the sorted lines of the output
    output_bytes: int


@dataclass(frozen=True)
class Row:
    """The runs of one job on one system: medians, and ratios to zmqmr (0: it did not run)."""

    job: str
    system: str
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: float
    wall_ratio: float
    cpu_ratio: float
    md5: str


def run_once(system: System, job: str, source: Path, scratch: Path) -> Run:
    """Run one job; raises RunFailed."""
    output, log = scratch / "output", scratch / "log"
    shutil.rmtree(output, ignore_errors=True)
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    with open(log, "wb") as file:
        usage = measure(
            system.command(job, source, output),
            scratch / "usage.json",
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environ,
            cwd=scratch,
        )
    if usage.returncode:
        end = log.read_text(errors="replace")[-3000:]
        raise RunFailed(f"{system.name} failed on {job} with {usage.returncode}:\n{end}")
    parts = sorted(output.glob("part*"))
    return Run(job, system.name, usage, digest(parts), sum(p.stat().st_size for p in parts))


def digest(parts: list[Path]) -> str:
    """The MD5 of the sorted lines of files; raises RunFailed when there is no file."""
    if not parts:
        raise RunFailed("there is no output")
    command = ["sort", "-S", "256M", *map(str, parts)]
    environ = {**os.environ, "LC_ALL": "C"}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as sort:
        assert sort.stdout is not None
        md5 = hashlib.md5(usedforsecurity=False)
        while block := sort.stdout.read(1024**2):
            md5.update(block)
    if sort.returncode:
        raise RunFailed("the output could not be sorted")
    return md5.hexdigest()


def summarise(runs: list[Run]) -> list[Row]:
    """One row for each job and system, in the order of their first runs."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.job, run.system].append(run)
    figures = {
        key: (
            median(run.usage.wall_seconds for run in group),
            median(run.usage.cpu_seconds for run in group),
            median(run.usage.peak_bytes for run in group),
        )
        for key, group in groups.items()
    }
    rows = []
    for (job, system), (wall, cpu, peak) in figures.items():
        base_wall, base_cpu, _ = figures.get((job, BASE), (0.0, 0.0, 0))
        rows.append(
            Row(
                job=job,
                system=system,
                wall_seconds=wall,
                cpu_seconds=cpu,
                peak_bytes=peak,
                wall_ratio=wall / base_wall if base_wall else 0.0,
                cpu_ratio=cpu / base_cpu if base_cpu else 0.0,
                md5=groups[job, system][0].md5,
            )
        )
    return rows


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| job | system | wall s | CPU s | peak MB | wall / zmqmr | CPU / zmqmr | md5 |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        ratios = [f"{ratio:.2f}" if ratio else "-" for ratio in (row.wall_ratio, row.cpu_ratio)]
        lines.append(
            f"| {row.job} | {row.system} | {row.wall_seconds:.2f} | {row.cpu_seconds:.2f} "
            f"| {row.peak_bytes / 1e6:.0f} | {ratios[0]} | {ratios[1]} | {row.md5[:8]} |"
        )
    return "\n".join(lines)


def differences(runs: list[Run]) -> list[str]:
    """A sentence for each job whose runs did not all give the same output."""
    found = []
    for job in dict.fromkeys(run.job for run in runs):
        by_md5: dict[str, set[str]] = defaultdict(set)
        for run in runs:
            if run.job == job:
                by_md5[run.md5].add(run.system)
        if len(by_md5) > 1:
            groups = "; ".join(f"{md5[:8]} {', '.join(sorted(s))}" for md5, s in by_md5.items())
            found.append(f"The outputs of {job} differ: {groups}.")
    return found


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def profile(jobs: list[str], sources: dict[str, Path], scratch: Path, directory: Path) -> None:
    """Run zmqmr under py-spy; leaves profile-JOB.svg, a flame graph, in `directory`."""
    if not shutil.which("py-spy"):
        raise RunFailed("--profile needs py-spy; install it with pip")
    for job in jobs:
        target = directory / f"profile-{job}.svg"
        recorder = System(
            "py-spy",
            lambda *args, target=target: [
                *("py-spy", "record", "--subprocesses", "--output", str(target), "--"),
                *SYSTEMS[0].command(*args),
            ],
            SYSTEMS[0].missing,
        )
        run_once(recorder, job, sources[job], scratch)
        print(target)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [system.name for system in SYSTEMS]
    parser.add_argument("--jobs", type=_some_of(list(JOBS)), default=list(JOBS), metavar="JOB,...")
    parser.add_argument("--systems", type=_some_of(names), default=names, metavar="SYSTEM,...")
    parser.add_argument("--size", type=_size, default=_size("32M"), help="bytes of the text (32M)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; medians are shown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to a file")
    parser.add_argument("--profile", action="store_true", help="draw flame graphs of zmqmr")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / f"zmqmr-bench-{os.getuid()}",
        help="keeps the generated data (%(default)s)",
    )
    return parser.parse_args(argv)


def _some_of(known: list[str]) -> Callable[[str], list[str]]:
    def parse_names(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return names

    return parse_names


def _size(text: str) -> int:
    number, unit = (text[:-1], UNITS[text[-1]]) if text[-1:] in UNITS else (text, 1)
    if not number.isdigit() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 32M")
    return int(number) * unit


def run_all(args: argparse.Namespace, sources: dict[str, Path], scratch: Path) -> list[Run]:
    """All runs that are asked for and possible; repeats are interleaved."""
    systems = [system for system in SYSTEMS if system.name in args.systems]
    for system in systems:
        if reason := system.missing():
            print(f"Without {system.name}: {reason}.", file=sys.stderr)
    runs = []
    for job in args.jobs:
        for _ in range(args.repeat):
            for system in systems:
                if system.missing() or job in system.left_out:
                    continue
                run = run_once(system, job, sources[job], scratch)
                runs.append(run)
                note = f"{job} {system.name} {run.usage.wall_seconds:.2f} s"
                if run.usage.left:
                    note += f"; {run.usage.left} processes outlived it"
                print(note, file=sys.stderr)
    return runs


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks for; returns the exit code."""
    args = parse(argv)
    sources = {job: make(JOBS[job], args.size, args.cache) for job in args.jobs}
    with tempfile.TemporaryDirectory(prefix="zmqmr-bench-", dir=args.cache) as scratch:
        try:
            if args.profile:
                profile(args.jobs, sources, Path(scratch), Path.cwd())
                return 0
            runs = run_all(args, sources, Path(scratch))
        except RunFailed as error:
            print(error, file=sys.stderr)
            return 1
    rows = summarise(runs)
    print(table(rows))
    if args.json:
        result = {"machine": machine(), "size": args.size, "runs": [asdict(r) for r in runs]}
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    found = differences(runs)
    for sentence in found:
        print(sentence, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
