"""How commands print: JSON for programs, tables and plain words for people."""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from zmqmr.client.texts import one_line
from zmqmr.errors import SpillError
from zmqmr.ids import LAST
from zmqmr.messages import Counters, StageProgress
from zmqmr.words import counted


def print_json(value: Any) -> None:
    """Print a value on one line, at once."""
    print(json.dumps(value), flush=True)


def print_bytes(data: bytes) -> None:
    """Print a block of a job's output, at once. SpillError when standard output takes no more."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # `| head`
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python flushes at its end
        raise SpillError(f"cannot write to standard output: {error.strerror}; the output is kept") from error


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows, the columns aligned; the last is not padded."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        print("  ".join([*padded, row[-1]]))


def print_progress(stages: Iterable[StageProgress], counters: Iterable[Counters], steps: int) -> None:
    """Print how far each stage of a job of so many steps is, and the counters of each step."""
    for stage in stages:
        more = f", {counted(stage.failures, 'failed attempt')}" if stage.failures else ""
        print(
            f"step {stage.step + 1} of {steps} {stage.kind}: {stage.done} of {counted(stage.tasks, 'task')}"
            f" done, {counted(stage.records, 'record')}, {counted(stage.bytes, 'byte')}{more}"
        )
    for number, groups in enumerate(counters, 1):
        for group, names in sorted(groups.items()):
            for name, count in sorted(names.items()):
                print(f"counter of step {number}: {one_line(group)} / {one_line(name)} = {count:,}")


def show_log(log: logging.Logger, before: str = "") -> None:
    """Have what a logger says from INFO on on standard error, each with the word `before`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(before + "%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def add_job_argument(parser: argparse.ArgumentParser) -> None:
    """Add the job that a command is about."""
    parser.add_argument("job", metavar="JOB", help=f"its id, or the beginning of it; {LAST}: the newest job")


def moment(seconds: float) -> str:
    """A time, given in seconds since 1970, on this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def duration(seconds: float) -> str:
    """Seconds as 4.2 s, 3:05 or 2:03:05."""
    if seconds < 60:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def say(message: str) -> None:
    """Tell the user something that is not the command's output."""
    print(f"zmqmr: {one_line(message)}", file=sys.stderr, flush=True)
