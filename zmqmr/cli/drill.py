"""zmqmr drill: run a job under faults on this machine and say whether its output stayed the same.

First once undisturbed, then once for each fault: at a random moment a process is killed or stopped, a file
is damaged or deleted, garbage is sent or the drive is full. The seed is printed; with `--seed` the same
moments are drawn again.
"""

import argparse
import filecmp
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace

from zmqmr.cli.faults import ATTEMPT, Fault, Target, all_faults
from zmqmr.cli.small_drive import SmallDrive
from zmqmr.client.records import Records
from zmqmr.data import places
from zmqmr.errors import EXIT_JOB_FAILED, EXIT_OK, UsageError
from zmqmr.settings import Settings

LATE = "had no chance"
NOT_TRIED = "not tried"
POLL_SECONDS = 0.01
MEASURE_SECONDS = 0.25  # between two looks at how much the undisturbed run keeps
PATIENCE_SECONDS = 120.0  # and ten times the undisturbed run: one that takes longer hangs
# A full drive fails every attempt until it has room again; that may be many.
FULL_DRIVE = {"ZMQMR_MAX_ATTEMPTS": "1000"}


@dataclass(frozen=True)
class Reference:
    """The undisturbed run."""

    output: str
    seconds: float
    data: str  # the directory of its intermediate data
    peak: int  # most bytes of intermediate data that were seen


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `drill` to the parser of `zmqmr`."""
    names = [_option(fault) for fault in all_faults(lambda target, draw: False)]
    parser = commands.add_parser(
        "drill",
        help="run a job under faults and compare its output",
        description="Run a job on this machine undisturbed, then once for each fault: "
        + "; ".join(name.replace("-", " ") for name in names)
        + "; each at a random moment. Say whether the output stayed the same, byte for byte.",
        epilog="The job must be deterministic and run for a few seconds, or the faults come too late."
        " Standard input is empty. The drive that is filled is a tmpfs which only that run sees."
        " Exit status: 0 every output was the same, 1 not, 2 the job fails alone.",
    )
    parser.add_argument("--seed", type=int, help="draw the same moments again")
    parser.add_argument("--rounds", type=int, default=1, help="runs for each fault (1)")
    parser.add_argument(
        "--fault",
        action="append",
        type=lambda name: name.replace(" ", "-"),
        choices=names,
        metavar="NAME",
        help=f"only this one, may be repeated; one of {', '.join(names)}",
    )
    parser.add_argument("job", help="the job file, after the switches of drill")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its switches and inputs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each run; 0 when every output was the same, 1 otherwise."""
    if args.rounds < 1:
        raise UsageError("--rounds must be at least 1")
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="zmqmr-drill-") as directory:
        drill = Drill(args, directory)
        print(f"{'undisturbed':24} done in {drill.reference.seconds:.1f} s", flush=True)
        failed = late = 0
        for number in range(args.rounds):
            for fault in drill.faults:
                said, good = drill.run(fault, random.Random(f"{seed} {number} {fault.name}"))
                print(f"{fault.name:24} {said}", flush=True)
                failed += not good
                late += said.startswith(LATE)
    if late:
        total = args.rounds * len(drill.faults)
        print(f"{late} of {total} faults had no chance to strike; more input gives them one")
    print("every output is the same" if not failed else f"{failed} of the runs went wrong")
    return EXIT_JOB_FAILED if failed else EXIT_OK


def _option(fault: Fault) -> str:
    """A fault's name as one word of a command line."""
    return fault.name.replace(" ", "-")


class Drill:
    """Runs of one job, whose outputs are compared with that of the first, undisturbed one."""

    def __init__(self, args: argparse.Namespace, directory: str):
        """Runs the job undisturbed; UsageError when it fails by itself."""
        self._args, self._directory = args, directory
        self._state = os.path.join(directory, "state")  # these runs are no jobs that anybody looks for
        self._records = Records.of(replace(Settings.from_environ(), state_directory=self._state))
        self._drive = SmallDrive(os.path.join(directory, "drive"))
        os.mkdir(self._drive.directory)
        self._runs = 0
        self.faults = [
            each for each in all_faults(self._fill) if _option(each) in (args.fault or [_option(each)])
        ]
        self.reference = self._undisturbed()

    def _undisturbed(self) -> Reference:
        if not os.path.isfile(self._args.job):
            raise UsageError(f"there is no job file {self._args.job}; it comes after the switches of drill")
        begun = time.monotonic()
        target, output = self._start()
        peak = 0
        while True:
            try:
                status = target.client.wait(MEASURE_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if target.record is not None:
                    peak = max(peak, places.size(target.record.data))
        if status:
            self._forget(target)
            raise UsageError(
                f"the job fails without any fault (exit status {status}): {self._why(target)}; see more with:"
                f" zmqmr-run {shlex.join([self._args.job, *self._args.arguments])}"
            )
        seconds = time.monotonic() - begun
        data = target.record.data if target.record is not None else ""
        return Reference(output, seconds, data, peak)

    def _start(self, small_drive: bool = False) -> tuple[Target, str]:
        """Begin a run; where its output will be."""
        self._runs += 1
        output = os.path.join(self._directory, f"output-{self._runs}")
        command = [sys.executable, "-m", "zmqmr.cli.run", self._args.job, *self._args.arguments]
        command += ["--output-dir", output, "--no-cat-output", "--quiet"]
        environ = os.environ | {"ZMQMR_STATE_DIRECTORY": self._state}
        if small_drive:
            command = self._drive.command(command)
            environ |= FULL_DRIVE | {"TMPDIR": self._drive.directory}
        known = set(self._records.jobs())
        with open(self._said, "wb") as said:
            client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=said, env=environ)
        return Target(client, self._records, known), output

    @property
    def _said(self) -> str:
        """What the newest run writes to standard error: its processes talk about the faults that hit them."""
        return os.path.join(self._directory, f"said-{self._runs}")

    def _why(self, target: Target) -> str:
        """Why a run failed, as far as it is known."""
        if target.reason:
            return target.reason
        with open(self._said, errors="replace") as file:
            lines = file.read().strip().splitlines()
        return lines[-1] if lines else "it did not say why"

    @staticmethod
    def _forget(target: Target) -> None:
        """A run that failed keeps what another could take up; nobody will."""
        if target.record is not None:
            places.remove(target.record.data)

    def run(self, fault: Fault, draw: random.Random) -> tuple[str, bool]:
        """Run the job and strike at a moment that is drawn; what to say, and whether all is well."""
        if fault.small_drive and (refusal := self._refusal()):
            return f"{NOT_TRIED}: {refusal}", True
        after = draw.uniform(0.05, fault.latest) * self.reference.seconds
        target, output = self._start(fault.small_drive)
        struck = self._strike(target, fault, after, draw)
        try:
            status = target.client.wait(PATIENCE_SECONDS + 10 * self.reference.seconds)
        except subprocess.TimeoutExpired:
            target.client.terminate()
            target.client.wait()
            self._forget(target)
            return f"after {after:.1f} s: THE JOB HANGS", False
        if status:
            self._forget(target)
            return (
                f"after {after:.1f} s: the job failed with exit status {status}: {self._why(target)}",
                False,
            )
        if not _same(self.reference.output, output):
            return f"after {after:.1f} s: THE OUTPUT DIFFERS", False
        if struck < 0:
            return f"{LATE}: same output", True
        return f"after {struck:.1f} s: same output", True

    def _strike(self, target: Target, fault: Fault, after: float, draw: random.Random) -> float:
        """Strike as soon as there is something to hit after so many seconds; when that was, -1.0: never."""
        begun = time.monotonic()
        while target.client.poll() is None:
            now = time.monotonic() - begun
            if now >= after and fault.strike(target, draw):
                return now
            time.sleep(POLL_SECONDS)
        return -1.0

    # --- the full drive ----------------------------------------------------------------------

    def _refusal(self) -> str:
        """Why the drive of a run cannot be filled; "" when it can."""
        if not self.reference.data.startswith(places.own_directory(places.base_directory(None))):
            return "local_tmp_dir says where the intermediate data are; leave it out for this fault"
        if not self._drive.room_for(self.reference.peak):
            return "the intermediate data of the job would not fit into memory, where the small drive is"
        refusal = self._drive.refusal()
        return f"this user can have no drive of their own here: {refusal}" if refusal else ""

    def _fill(self, target: Target, _: random.Random) -> bool:
        """Fill the drive for a while; whether anything failed for that. Not before tasks run: a job that
        has no room to begin fails at once, which is right."""
        from zmqmr.client.joblog import entries  # imported late: `zmqmr doctor` works without mrjob

        if target.record is None or not target.process(ATTEMPT) or not self._drive.fill(target.client.pid):
            return False
        log = self._records.log_path(target.record.job)
        return any("o space left" in entry["text"] for _, entry in entries(log))


def _same(one: str, other: str) -> bool:
    names = sorted(os.listdir(one))
    if names != sorted(os.listdir(other)):
        return False
    return not any(filecmp.cmpfiles(one, other, names, shallow=False)[1:])
