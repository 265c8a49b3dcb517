"""Substeps that run as a subprocess: commands, filters before a script, another Python interpreter."""

import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from mrjob.util import cmd_line

from zmqmr.core.plan import Link
from zmqmr.worker.explain import CommandFailed
from zmqmr.worker.links import reduce_records
from zmqmr.worker.sinks import lines_of
from zmqmr.worker.spawn import describe_status

if TYPE_CHECKING:
    from zmqmr.worker.attempt import Attempt
    from zmqmr.worker.output import Output

_READ_BYTES = 256 * 1024


class LineTarget(Protocol):
    """What takes the command's output."""

    def add_lines(self, lines: Iterable[bytes]) -> None: ...


def command_of(attempt: "Attempt", link: tuple[int, str], extra: tuple[str, ...] = ()) -> list[str]:
    """The argument list that runs a substep."""
    spec = attempt.spec
    number, kind = link
    substep = getattr(spec.steps[number], kind)
    if substep.kind == "command":
        return list(substep.command)
    python = list(spec.task_python) or [sys.executable]
    script = [*python, spec.script, f"--step-num={number}", f"--{kind}", *spec.task_args, *extra]
    if substep.pre_filter:
        return [*spec.sh, "-c", f"{substep.pre_filter} | {cmd_line(script)}"]
    return script


def pipe_through(
    attempt: "Attempt",
    link: tuple[int, str],
    blocks: Iterator[bytes],
    target: LineTarget,
    extra: tuple[str, ...] = (),
) -> None:
    """Feed blocks of lines to a substep's command and pass on the lines that it writes.

    CommandFailed when it ends with an error. Its standard error is the attempt's.
    """
    command = command_of(attempt, link, extra)
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        raise CommandFailed(f"cannot run {cmd_line(command)}: {error.strerror}") from error
    assert process.stdin is not None and process.stdout is not None
    feeder = _Feeder(process.stdin, blocks)
    feeder.start()
    rest = b""
    while data := process.stdout.read1(_READ_BYTES):  # type: ignore[attr-defined]
        data = rest + data
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        if end:
            target.add_lines(lines_of(data[:end]))
    if rest:
        target.add_lines([rest])
    code = process.wait()
    feeder.join()
    if feeder.error is not None:
        raise feeder.error
    if code and _failure_counts(attempt, link[0]):
        how = f"exit code {code}" if code > 0 else describe_status(-code)
        raise CommandFailed(f"{cmd_line(command)} ended with {how}")


def _failure_counts(attempt: "Attempt", step: int) -> bool:
    return attempt.spec.steps[step].jobconf.get("stream.non.zero.exit.is.failure", "true").lower() != "false"


class _Feeder(threading.Thread):
    """Writes a command's input while its output is read. A command may stop reading early."""

    def __init__(self, stdin: Any, blocks: Iterator[bytes]):
        super().__init__(daemon=True)
        self._stdin, self._blocks = stdin, blocks
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with self._stdin:
                for block in self._blocks:
                    self._stdin.write(block)
        except BrokenPipeError:
            pass
        except BaseException as error:
            self.error = error


def run_command(attempt: "Attempt", link: Link, output: "Output") -> None:
    """Run a stage that is one command over the attempt's input."""
    target = output.target(None, None)
    if link[1] == "reducer":
        pipe_through(attempt, link, reduce_records(attempt), target)
    elif attempt.spec.input_mode == "files" and attempt.launch.split:
        for path, uri in attempt.raw_files():
            pipe_through(attempt, link, iter(()), target, (path, uri))
    else:
        pipe_through(attempt, link, attempt.map_blocks(), target)
