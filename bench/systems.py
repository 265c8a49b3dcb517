"""What the benchmark compares: for each system, the command that runs a job.

Every command reads one input file and writes its lines, which are the same for all systems, to files
`part*` in an output directory.
"""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

JOBS_DIRECTORY = Path(__file__).parent / "jobs"

# job -> the kind of data it reads; "tiny" is word count on 20 bytes: what starting costs.
JOBS = {
    "wc": "text",
    "wcnc": "text",
    "mostused": "text",
    "group": "records",
    "idsort": "records",
    "tiny": "tiny",
}

_COUNT = r"tr -s ' ' '\n' < $0 | sort | uniq -c"
_AS_JSON = r"""awk '{ printf "\"%s\"\t%d\n", $2, $1 }'"""
PIPELINES = {
    "wc": f"{_COUNT} | {_AS_JSON}",
    "mostused": rf"""{_COUNT} | sort -k 1,1n -k 2,2 | tail -n 1 |
        awk '{{ printf "null\t[%d, \"%s\"]\n", $1, $2 }}'""",
    "group": r"""sort $0 | awk '
        function emit() { printf "\"%s\"\t[%d, %d]\n", key, total, count }
        $1 != key { if (count) emit(); key = $1; total = count = 0 }
        { total += $2; count++ }
        END { emit() }'""",
    "idsort": r"""sort $0 | awk '{ print "\"" $1 "\"\t\"" substr($0, length($1) + 2) "\"" }'""",
}
PIPELINES["wcnc"] = PIPELINES["tiny"] = PIPELINES["wc"]


@dataclass(frozen=True)
class System:
    """One system under test."""

    name: str
    command: Callable[[str, Path, Path], list[str]]  # of job, input, output directory
    missing: Callable[[], str]  # why it cannot run here, or ""
    left_out: tuple[str, ...] = ()  # jobs that it has no way to do


def script(job: str) -> Path:
    """The mrjob job file of `job`."""
    return JOBS_DIRECTORY / f"{'wc' if job == 'tiny' else job}.py"


def _zmqmr(job: str, source: Path, output: Path) -> list[str]:
    command = [sys.executable, "-m", "zmqmr.cli.run", str(script(job)), "--no-conf"]
    return [*command, "--output-dir", str(output), str(source)]


def _mrjob(runner: str, scheme: str = "") -> Callable[[str, Path, Path], list[str]]:
    def command(job: str, source: Path, output: Path) -> list[str]:
        start = [sys.executable, str(script(job)), "-r", runner, "--no-conf"]
        return [*start, "--output-dir", f"{scheme}{output}", f"{scheme}{source}"]

    return command


def _by_hand(library: str) -> Callable[[str, Path, Path], list[str]]:
    def command(job: str, source: Path, output: Path) -> list[str]:
        program = JOBS_DIRECTORY / f"by_{library}.py"
        name = "wc" if job == "tiny" else job
        return [sys.executable, str(program), name, str(source), str(output)]

    return command


def _pipeline(job: str, source: Path, output: Path) -> list[str]:
    commands = f"export LC_ALL=C; mkdir $1; {{ {PIPELINES[job]}\n}} > $1/part"
    return ["sh", "-ec", commands, str(source), str(output)]


def _needs_module(name: str) -> Callable[[], str]:
    return lambda: "" if find_spec(name) else f"the Python package {name} is not installed"


def _needs_program(name: str) -> Callable[[], str]:
    return lambda: "" if shutil.which(name) else f"the program {name} is not on the PATH"


SYSTEMS = [
    System("zmqmr", _zmqmr, _needs_module("zmqmr.cli.run")),
    System("inline", _mrjob("inline"), _needs_module("mrjob")),
    System("local", _mrjob("local"), _needs_module("mrjob")),
    System("pyspark", _by_hand("pyspark"), _needs_module("pyspark")),
    System("dask", _by_hand("dask"), _needs_module("dask"), left_out=("idsort",)),
    System("hadoop", _mrjob("hadoop", "file://"), _needs_program("hadoop")),
    System("sort", _pipeline, _needs_program("sort")),
]
