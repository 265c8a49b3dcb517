"""zmqmr replay: run a failed task's input again, alone, in the foreground, with mrjob's own code.

The task is a process of its own, after the job's setup script where it has one: however it ends, this one can
say so.
"""

import argparse
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from zmqmr.cli.repro import find_bundle
from zmqmr.client.texts import one_line
from zmqmr.data.jobfile import load_job_class
from zmqmr.errors import EXIT_INTERRUPTED, EXIT_JOB_FAILED, EXIT_OK, UsageError

if TYPE_CHECKING:
    from zmqmr.worker.repro import Recipe

MEMBERS = ("recipe.json", "input", "bundle")
VERDICT = "verdict"  # a file: empty when the task has begun, then what came of it
SHOWN_LINES = 20  # of the task's output: its end, which is nearest to the failure
SHOWN_BYTES = 1000  # of one of them
COUNTER = re.compile(rb"reporter:counter:(.*),(-?\d+)\n?$")


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `replay` to the parser of `zmqmr`."""
    parser = commands.add_parser(
        "replay",
        help="run a failed task again, alone, in the foreground",
        description="Run the failed task of a repro bundle again, in the foreground, with mrjob's own"
        " code: the same input up to the record it failed on, the same files, setup commands, switches and"
        " environment. It shows the end of what the task yields, its counters, and the traceback last.",
        epilog="Exit status: 0 it did not fail this time, 1 it failed again, 2 the bundle cannot be used.",
    )
    parser.add_argument("bundle", help="the path that the failure named after 'run it alone', or a job")
    parser.add_argument("--pdb", action="store_true", help="stop in the debugger where it fails")
    parser.add_argument("--output", metavar="FILE", help="keep all that the task yields in this file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the end of what the task yields; 0, or 1 when it fails again, with the traceback."""
    from zmqmr.data.bundles import unpack  # imported late: `zmqmr doctor` works without any library

    output = os.path.abspath(args.output) if args.output else ""
    with tempfile.TemporaryDirectory(prefix="zmqmr-replay-") as directory:
        recipe = _unpack(args.bundle, directory)
        if output:
            _check_writable(output)
        what = one_line(f"{recipe.task} of {recipe.job}, which failed: {recipe.reason}")
        print(f"zmqmr replay: {what}", file=sys.stderr, flush=True)
        unpack(os.path.join(directory, "bundle"), recipe.bundle_sha256, os.path.join(directory, "work"))
        return _watch(recipe, directory, [output, "pdb" if args.pdb else ""])


def _check_writable(path: str) -> None:
    try:
        with open(path, "ab"):
            pass
    except OSError as error:
        raise UsageError(f"cannot write --output {path}: {error.strerror}") from error


def _unpack(path: str, directory: str) -> "Recipe":
    """The three files of a repro bundle, and no others, whatever the archive holds."""
    import msgspec

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
        return _recipe(directory)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (tarfile.TarError, KeyError, msgspec.MsgspecError, EOFError) as error:
        raise UsageError(
            f"{path} is not a repro bundle of zmqmr; give the path that a failure names after 'run it alone'"
        ) from error


def _recipe(directory: str) -> "Recipe":
    import msgspec

    from zmqmr.worker.repro import Recipe

    with open(os.path.join(directory, "recipe.json"), "rb") as file:
        return msgspec.json.decode(file.read(), type=Recipe)


# --- the process that watches ----------------------------------------------------------------


def _watch(recipe: "Recipe", directory: str, arguments: list[str]) -> int:
    """Run the task as a process of its own; the exit status."""
    from zmqmr.worker.explain import HUNG
    from zmqmr.worker.spawn import describe_status, python_running
    from zmqmr.worker.taskenv import with_environ

    command = [*python_running("zmqmr.cli.replay"), directory, *arguments]
    if recipe.setup_script:
        command = [*recipe.sh, recipe.setup_script, *command]
    if recipe.reason == HUNG:
        print("zmqmr replay: it hung; when it does, Ctrl-C shows where", file=sys.stderr, flush=True)
    environ = with_environ(os.environ, recipe.environment)
    child = subprocess.Popen(command, cwd=os.path.join(directory, "work"), env=environ)
    with _deaf_to_interrupts():
        code = child.wait()
    try:
        with open(os.path.join(directory, VERDICT)) as file:
            verdict = file.read()
    except FileNotFoundError:
        raise UsageError(
            f"the --setup commands failed (exit code {code}): sh's trace above ends with the one that did"
        ) from None
    if verdict:
        return int(verdict)
    status = -code if code < 0 else code << 8
    print(f"zmqmr replay: the task's process ended: {describe_status(status)}", file=sys.stderr)
    return EXIT_JOB_FAILED


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """An interrupt is for the task, or for its debugger."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


# --- the process of the task -----------------------------------------------------------------


def main() -> None:
    """Run the task of the unpacked bundle in a directory, which is named first; then come the file for its
    output and "pdb", each or "". What came of it is written there."""
    directory, output, pdb = sys.argv[1:4]
    verdict = os.path.join(directory, VERDICT)
    with open(verdict, "w"):
        pass
    code = _run(_recipe(directory), directory, output, bool(pdb))
    with open(verdict, "w") as file:
        file.write(str(code))
    sys.exit(code)


def _run(recipe: "Recipe", directory: str, path: str, debug: bool) -> int:
    from zmqmr.worker.taskenv import with_environ

    os.environ.update(with_environ(os.environ, recipe.environment))  # the setup script may have changed it
    own = [os.path.join(os.getcwd(), name) for name in recipe.python_path]
    os.environ["PYTHONPATH"] = os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.path[1:1] = own
    job = load_job_class(recipe.script, recipe.argv)()
    output, reports, failure = _Output(path), _Reports(), None
    with open(os.path.join(directory, "input"), "rb") as job._stdin:
        job._stdout, job._stderr = output, io.BufferedWriter(reports)
        try:
            getattr(job, f"run_{recipe.kind}")(recipe.step)
        except BaseException as error:
            failure = error
    job._stderr.flush()
    sys.stdout.flush()
    output.show()
    reports.show()
    if failure is None:
        print("zmqmr replay: it did not fail this time", file=sys.stderr)
        return EXIT_OK
    _explain(failure, recipe)
    if debug:
        import pdb

        pdb.post_mortem(_own_frames(failure))
    return EXIT_INTERRUPTED if isinstance(failure, KeyboardInterrupt) else EXIT_JOB_FAILED


def _explain(failure: BaseException, recipe: "Recipe") -> None:
    """Print the traceback, and before it that the task failed in another way than it was recorded to."""
    from zmqmr.worker.explain import reason_of

    sys.stdout.flush()
    if not recipe.reason.startswith(reason_of(failure)) and not isinstance(failure, KeyboardInterrupt):
        print("zmqmr replay: it failed in another way than in the job; this time:", file=sys.stderr)
    text = "".join(traceback.format_exception(type(failure), failure, _own_frames(failure)))
    print("\n" + text.replace(os.getcwd() + os.sep, ""), end="", file=sys.stderr, flush=True)


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

    def __init__(self, path: str):
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
