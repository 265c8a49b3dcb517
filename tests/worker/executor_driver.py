"""Runs attempts under a real executor and prints how each ended; a program of its own, since only a
process with one thread may fork.

Usage: executor_driver.py FOLDER NAME..., with the job `job.py` in FOLDER/work; each NAME is a task's input.
"""

import os
import select
import sys
from pathlib import Path

import msgspec
from core.strategies import make_spec

from zmqmr.messages import (
    AttemptEnded,
    ExecutorReady,
    FromExecutor,
    InputFile,
    Kill,
    Launch,
    Piece,
    Run,
    Split,
    decode,
)
from zmqmr.worker.spawn import ExecutorProcess


def order(folder: Path, name: str) -> Run:
    """The order to run the attempt whose input is one line, its name."""
    source = folder / f"{name}.in"
    source.write_text(f"{name}\n")
    file = InputFile(str(source), source.stat().st_size, source.stat().st_mtime_ns)
    split = Split((Piece(file, 0, file.size),))
    launch = Launch("job", name, 1, 0, 0, ((0, "mapper"),), False, split, None, 0, (), 1)
    directory = folder / f"{name}.attempt"
    directory.mkdir()
    return Run(launch, 7, (), str(directory), str(folder / f"{name}.out"), "")


def main(folder: Path, names: list[str]) -> dict[str, AttemptEnded]:
    """How each attempt ended; one called "wait" is killed once it says that it waits."""
    executor = ExecutorProcess.fork()
    executor.begin(make_spec(), str(folder / "work"))
    orders = [order(folder, name) for name in names]
    ended: dict[str, AttemptEnded] = {}
    while len(ended) < len(names):
        select.select([executor.fd], [], [])
        for frame in executor.receive():
            message = decode(frame, FromExecutor)
            if isinstance(message, ExecutorReady):
                for run in orders:
                    executor.send(run)
            elif isinstance(message, AttemptEnded):
                assert message.task not in ended, "it ended twice"
                ended[message.task] = message
            elif getattr(message, "status", "") == "waiting":
                executor.send(Kill("job", message.task, 1))
        assert not executor.closed, "the executor ended"
    ended_how = executor.close()
    assert ended_how == "exit code 0", ended_how
    return ended


if __name__ == "__main__":
    os.write(1, msgspec.json.encode(main(Path(sys.argv[1]), sys.argv[2:])))
