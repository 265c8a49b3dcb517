"""zmqmr drill: run a job under faults on this machine and say whether its output stayed the same.

First once undisturbed, then once for each fault: at a random moment a process is killed or stopped.
The seed is printed; with `--seed` the same moments are drawn again.
"""

import argparse
import filecmp
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from zmqmr.errors import EXIT_JOB_FAILED, EXIT_OK, UsageError

LATE = "came too late"
POLL_SECONDS = 0.02
STOP_SECONDS = 2.0  # how long a stopped process stays so


@dataclass(frozen=True)
class Fault:
    """What happens to which process of a run."""

    name: str
    process: str  # as in /proc/PID/comm
    kill: bool  # or stop for a while


FAULTS = (
    Fault("kill an attempt", "zmqmr-attempt", True),
    Fault("kill the executor", "zmqmr-executor", True),
    Fault("kill the agent", "zmqmr-agent", True),
    Fault("kill the coordinator", "zmqmr-coord", True),
    Fault("stop the agent", "zmqmr-agent", False),
    Fault("stop the coordinator", "zmqmr-coord", False),
)


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `drill` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "drill",
        help="run a job under faults and compare its output",
        description="Run a job on this machine undisturbed, then once for each fault: "
        + "; ".join(fault.name for fault in FAULTS)
        + "; each at a random moment. Say whether the output stayed the same, byte for byte.",
        epilog="The job must be deterministic and run for a few seconds, or the faults come too late."
        " Standard input is empty. Exit status: 0 every output was the same, 1 not, 2 the job fails alone.",
    )
    parser.add_argument("--seed", type=int, help="draw the same moments again")
    parser.add_argument("--rounds", type=int, default=1, help="runs for each fault (1)")
    parser.add_argument("job", help="the job file, after the switches of drill")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its switches and inputs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each run; 0 when every output was the same, 1 otherwise."""
    if args.rounds < 1:
        raise UsageError("--rounds must be at least 1")
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="zmqmr-drill-") as directory:
        reference = os.path.join(directory, "reference")
        seconds = _run_job(args, reference)
        print(f"{'undisturbed':24} done in {seconds:.1f} s")
        failed = late = 0
        for number in range(args.rounds):
            for fault in FAULTS:
                output = os.path.join(directory, f"{number}-{FAULTS.index(fault)}")
                said, good = _drill(args, fault, draw.uniform(0.05, 0.9) * seconds, reference, output)
                print(f"{fault.name:24} {said}", flush=True)
                failed += not good
                late += said.startswith(LATE)
    if late:
        print(
            f"{late} of {args.rounds * len(FAULTS)} faults came too late to happen: give the job more input"
        )
    print("every output is the same" if not failed else f"{failed} of the runs went wrong")
    return EXIT_JOB_FAILED if failed else EXIT_OK


def _command(args: argparse.Namespace, output: str) -> list[str]:
    run_command = [sys.executable, "-m", "zmqmr.cli.run"]
    return [*run_command, args.job, *args.arguments, "--output-dir", output, "--no-cat-output", "--quiet"]


def _run_job(args: argparse.Namespace, output: str) -> float:
    """Run the job undisturbed; its time in seconds. UsageError when it fails by itself."""
    begun = time.monotonic()
    status = subprocess.run(_command(args, output), stdin=subprocess.DEVNULL).returncode
    if status:
        raise UsageError(
            f"the job fails without any fault (exit status {status}); see why with:"
            f" zmqmr-run {shlex.join([args.job, *args.arguments])}"
        )
    return time.monotonic() - begun


def _drill(
    args: argparse.Namespace, fault: Fault, after: float, reference: str, output: str
) -> tuple[str, bool]:
    """Run the job, strike `after` seconds; what to say, and whether all is well."""
    client = subprocess.Popen(_command(args, output), stdin=subprocess.DEVNULL)
    struck = _strike(client, fault, after)
    status = client.wait()
    if status:
        return f"after {after:.1f} s: the job failed with exit status {status}", False
    if not _same(reference, output):
        return f"after {after:.1f} s: THE OUTPUT DIFFERS", False
    return f"after {after:.1f} s: same output" if struck else f"{LATE}: same output", True


def _strike(client: "subprocess.Popen[bytes]", fault: Fault, after: float) -> bool:
    """Hit the first process of the fault's kind that lives after so many seconds; whether there was one."""
    begun = time.monotonic()
    while client.poll() is None:
        if time.monotonic() - begun >= after:
            victims = [pid for pid in _descendants(client.pid) if _name(pid) == fault.process]
            if victims:
                _hit(victims[0], fault)
                return True
        time.sleep(POLL_SECONDS)
    return False


def _hit(pid: int, fault: Fault) -> None:
    try:
        os.kill(pid, signal.SIGKILL if fault.kill else signal.SIGSTOP)
        if not fault.kill:
            time.sleep(STOP_SECONDS)
            os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass  # it ended first


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [int(child) for child in file.read().split()]
    except OSError:
        return found
    for child in children:
        found += [child, *_descendants(child)]
    return found


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def _same(one: str, other: str) -> bool:
    names = sorted(os.listdir(one))
    if names != sorted(os.listdir(other)):
        return False
    return not any(filecmp.cmpfiles(one, other, names, shallow=False)[1:])
