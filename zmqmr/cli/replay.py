"""zmqmr replay: run a failed task's input again, alone, in the foreground, with mrjob's own code."""

import argparse
import io
import os
import re
import sys
import tarfile
import tempfile
import traceback
from collections import Counter, deque
from types import TracebackType
from typing import TYPE_CHECKING, Any

from zmqmr.cli.repro import find_bundle
from zmqmr.client.texts import one_line
from zmqmr.data.jobfile import load_job_class
from zmqmr.errors import EXIT_JOB_FAILED, EXIT_OK, UsageError

if TYPE_CHECKING:
    from zmqmr.worker.repro import Recipe

MEMBERS = ("recipe.json", "input", "bundle")
SHOWN_LINES = 20  # of the task's output: its end, which is nearest to the failure
SHOWN_BYTES = 1000  # of one of them
COUNTER = re.compile(rb"reporter:counter:(.*),(-?\d+)\n?$")


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `replay` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "replay",
        help="run a failed task again, alone, in the foreground",
        description="Run the failed task of a repro bundle again, in the foreground, with mrjob's own"
        " code: the same input up to the record it failed on, the same files, switches and environment. It"
        " shows the end of what the task yields, its counters, and the traceback last.",
        epilog="Exit status: 0 it did not fail this time, 1 it failed again, 2 the bundle cannot be used.",
    )
    parser.add_argument("bundle", help="the path that the failure named after 'run it alone', or a job")
    parser.add_argument("--pdb", action="store_true", help="stop in the debugger where it fails")
    parser.add_argument("--output", metavar="FILE", help="keep all that the task yields in this file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the end of what the task yields; 0, or 1 when it fails again, with the traceback."""
    from zmqmr.data.bundles import unpack  # imported late: `zmqmr doctor` works without any library

    args.output = os.path.abspath(args.output) if args.output else None

    with tempfile.TemporaryDirectory(prefix="zmqmr-replay-") as directory:
        recipe = _unpack(args.bundle, directory)
        what = one_line(f"{recipe.task} of {recipe.job}, which failed: {recipe.reason}")
        print(f"zmqmr replay: {what}", file=sys.stderr)
        work = os.path.join(directory, "work")
        unpack(os.path.join(directory, "bundle"), recipe.bundle_sha256, work)
        os.chdir(work)
        try:
            return _run(recipe, os.path.join(directory, "input"), args)
        finally:
            os.chdir("/")


def _unpack(path: str, directory: str) -> "Recipe":
    """The three files of a repro bundle, and no others, whatever the archive holds."""
    import msgspec

    from zmqmr.worker.repro import Recipe

    path = find_bundle(path)
    try:
        with tarfile.open(path) as tar:
            for name in MEMBERS:
                source = tar.extractfile(name)
                if source is None:
                    raise KeyError(name)
                with source, open(os.path.join(directory, name), "wb") as target:
                    while block := source.read(1024**2):
                        target.write(block)
        with open(os.path.join(directory, "recipe.json"), "rb") as file:
            return msgspec.json.decode(file.read(), type=Recipe)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (tarfile.TarError, KeyError, msgspec.MsgspecError) as error:
        raise UsageError(f"{path} is not a repro bundle of zmqmr: {error}") from error


def _run(recipe: "Recipe", path: str, args: argparse.Namespace) -> int:
    os.environ.update(recipe.environment)
    job_class = load_job_class(recipe.script, recipe.argv)
    job = job_class()
    output = _Output(args.output)
    reports = _Reports()
    failure = None
    with open(path, "rb") as job._stdin:
        job._stdout, job._stderr = output, io.BufferedWriter(reports)
        try:
            getattr(job, f"run_{recipe.kind}")(recipe.step)
        except Exception as error:
            failure = error
    job._stderr.flush()
    sys.stdout.flush()
    output.show()
    reports.show()
    if failure is None:
        print("zmqmr replay: it did not fail this time", file=sys.stderr)
        return EXIT_OK
    sys.stdout.flush()
    frames = _own_frames(failure)
    text = "".join(traceback.format_exception(type(failure), failure, frames))
    print("\n" + text.replace(os.getcwd() + os.sep, ""), end="", file=sys.stderr, flush=True)
    if args.pdb:
        import pdb

        pdb.post_mortem(frames)
    return EXIT_JOB_FAILED


def _own_frames(error: BaseException) -> TracebackType | None:
    """The traceback from the first frame of the job's own files, without zmqmr's and mrjob's before it."""
    found = error.__traceback__
    while found is not None:
        if found.tb_frame.f_code.co_filename.startswith(os.getcwd() + os.sep):
            return found
        found = found.tb_next
    return error.__traceback__


class _Output(io.RawIOBase):
    """What the task yields: all of it into a file, or the last lines of it, to be shown."""

    def __init__(self, path: str | None):
        self._path = path
        self._file = open(path, "wb") if path else None  # noqa: SIM115  closed in show
        self._last: deque[bytes] = deque(maxlen=SHOWN_LINES)
        self._lines = 0
        self._rest = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._file is not None:
            return self._file.write(data)
        *lines, self._rest = (self._rest + bytes(data)).split(b"\n")
        self._last += lines
        self._lines += len(lines)
        return len(data)

    def show(self) -> None:
        """Say where the output is, or print its end."""
        if self._file is not None:
            self._file.close()
            print(f"zmqmr replay: its output is in {self._path}", file=sys.stderr)
            return
        if self._rest:
            self.write(b"\n")
        if self._lines > len(self._last):
            left_out = f"{self._lines - len(self._last)} lines of output are not shown"
            print(f"zmqmr replay: {left_out}; --output FILE keeps all", file=sys.stderr, flush=True)
        for line in self._last:
            more = b"..." if len(line) > SHOWN_BYTES else b""
            sys.stdout.buffer.write(line[:SHOWN_BYTES] + more + b"\n")
        sys.stdout.flush()


class _Reports(io.RawIOBase):
    """The job's standard error: counters are added up, statuses left out, the rest is shown at once."""

    def __init__(self) -> None:
        self._counters: Counter[str] = Counter()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        for line in bytes(data).splitlines(keepends=True):
            if counter := COUNTER.match(line):
                self._counters[counter[1].decode("utf-8", "replace")] += int(counter[2])
            elif not line.startswith(b"reporter:status:"):
                sys.stderr.write(line.decode("utf-8", "replace"))
        return len(data)

    def show(self) -> None:
        """Print the counters."""
        for name, amount in sorted(self._counters.items()):
            print(f"zmqmr replay: counter {one_line(name)} = {amount}", file=sys.stderr)
