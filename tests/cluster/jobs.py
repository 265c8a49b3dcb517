"""A job for the tests of clusters, and what it gives."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from differential.harness import Result
from environment import ROOT
from testbed.controller import Controller

JOB = ROOT / "tests/jobs/noted_words.py"
SLOW = ("--pause", "0.02")  # for each line
MARK = "aMarkThatNobodyElseSends"


@dataclass
class Running:
    """A slow job on the cluster, whose maps have begun."""

    process: "subprocess.Popen[bytes]"

    def end(self) -> Result:
        stdout, stderr = self.process.communicate(timeout=240)
        return Result(self.process.returncode, stdout, stderr.decode(errors="replace"))


def start(cluster: Controller, lines: Path, *switches: str) -> "subprocess.Popen[bytes]":
    maps = ("-D", "mapreduce.job.maps=12", "-D", "mapreduce.job.reduces=3")
    command = ["zmqmr-run", str(JOB), "--cluster", cluster.name, "--no-conf", *maps, *switches, str(lines)]
    return subprocess.Popen(
        cluster.bed.network.command(*command), cwd=ROOT, env=cluster.environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def same(ours: Result, expected: Result) -> None:
    assert ours.rc == 0, ours.stderr
    assert ours.lines == expected.lines
    assert ours.counters == expected.counters
