"""Why an attempt failed: the exception, the record it failed on, the user's part of the traceback."""

import os
import traceback
from collections.abc import Iterator
from reprlib import Repr
from types import TracebackType
from typing import Any

from zmqmr.data.codecs import json_dumps
from zmqmr.errors import (
    Corrupt,
    InputError,
    InputTruncated,
    InputVanished,
    LineTooLong,
    OutOfDisk,
    SpillError,
)
from zmqmr.messages import Failure
from zmqmr.worker.partitions import spill_error

_RECORD_BYTES = 200  # of a failing record shown
_REASON_CHARACTERS = 1000
_TRACEBACK_CHARACTERS = 50_000
_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 200
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Position:
    """Where in its input an attempt is: the block being read, and the iterator over its lines."""

    def __init__(self) -> None:
        self.path = ""
        self.offset = 0
        self._block = b""
        self._lines: Iterator[Any] | None = None
        self._count = 0
        self._taken = 0
        self.record_override: bytes | None = None

    def at(self, path: str, offset: int, block: bytes) -> None:
        """A new block is being read; it begins at `offset` of `path`."""
        self.path, self.offset, self._block = path, offset, block
        self._lines, self.record_override, self._taken = None, None, 0

    def only(self, offset: int, record: bytes) -> None:
        """`record`, at `offset`, is being processed."""
        self.offset, self.record_override = offset, record
        self._taken += 1

    def follow(self, lines: Iterator[Any]) -> None:
        """`lines`, a list iterator, tells how many of the block's lines are not yet taken."""
        self._lines = lines
        self._count = lines.__length_hint__()  # type: ignore[attr-defined]

    def remaining(self) -> int:
        """How many lines of the block are not yet taken; 0 when that is not known."""
        lines = self._lines
        return lines.__length_hint__() if lines is not None else 0  # type: ignore[attr-defined]

    def consumed(self) -> int:
        """How many lines of the block have been taken."""
        return self._count - self.remaining() if self._lines is not None else self._taken

    def within_block(self) -> tuple[int, int]:
        """Lines of the block taken so far, and about how many bytes they have."""
        taken = self.consumed()
        total = self._count if self._lines is not None else self._block.count(b"\n") + 1
        return taken, len(self._block) * taken // max(total, 1)

    def record(self) -> tuple[int, bytes] | None:
        """Offset and bytes of the record being processed, if known."""
        if self.record_override is not None:
            return self.offset, self.record_override
        if self._lines is None:
            return None
        index = self._count - self.remaining() - 1
        if index < 0:
            return None
        start = 0
        for _ in range(index):
            start = self._block.index(b"\n", start) + 1
        end = self._block.find(b"\n", start)
        return self.offset + start, self._block[start : end if end >= 0 else None]


def excerpt(record: bytes) -> str:
    """A record for people: escaped, so that it cannot move a terminal's cursor, and cut."""
    text = repr(record[:_RECORD_BYTES])[1:]
    return f"{text}... ({len(record)} bytes)" if len(record) > _RECORD_BYTES else text


def explain_spill(error: Exception) -> Failure:
    """The failure that an error of a drive, or of what is kept on one, means."""
    if isinstance(error, OSError):
        error = spill_error(error, str(error.filename or "intermediate data"))
    return Failure(
        str(error)[:_REASON_CHARACTERS],
        path=getattr(error, "path", ""),
        damaged=isinstance(error, Corrupt),
        no_room=isinstance(error, OutOfDisk),
    )


def explain(error: BaseException, position: Position, job_work: str) -> Failure:
    """The failure that an exception means. Files of `job_work`, a copy that goes with the job, are
    named as the user knows them."""
    if isinstance(error, InputError):
        fatal = isinstance(error, InputTruncated | InputVanished | LineTooLong)
        return Failure(str(error)[:_REASON_CHARACTERS], path=error.path, offset=error.offset, fatal=fatal)
    if isinstance(error, SpillError):
        return explain_spill(error)
    if isinstance(error, CommandFailed):
        return Failure(str(error)[:_REASON_CHARACTERS], path=position.path)
    found = position.record()
    return Failure(
        reason=_sendable(_reason(error) + _while_writing(error))[:_REASON_CHARACTERS],
        traceback=_sendable(_user_traceback(error)).replace(job_work + os.sep, "")[-_TRACEBACK_CHARACTERS:],
        path=position.path,
        offset=found[0] if found and position.path else None,
        record=excerpt(found[1]) if found else "",
    )


class CommandFailed(Exception):
    """A substep that runs as a command ended with an error; its standard error says why."""


def _sendable(text: str) -> str:
    """Text as UTF-8 can hold it: a file name that is not UTF-8 has lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "MemoryError: the task exceeded its memory (ZMQMR_TASK_MEMORY_BYTES, or what the machine has)"
    if isinstance(error, SystemExit):
        return f"the job called sys.exit({error.code!r}) in a task"
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _while_writing(error: BaseException) -> str:
    """What was being written when a protocol refused it; "" when the error comes from elsewhere.

    The frames tell: one of ours holds the key, the value and the writer, and the next is the writer's own. A
    handler there would cost every record something.
    """
    kind, found = "task", ""
    frames = error.__traceback__
    while frames is not None:
        variables = frames.tb_frame.f_locals
        kind = _substep_kind(frames) or kind
        if {"key", "value"} <= variables.keys() and _calls_a_writer(frames):
            found = (
                f"; while writing what the {kind} yielded: key {_short(variables['key'])},"
                f" value {_short(variables['value'])}"
            )
        frames = frames.tb_next
    return found


def _substep_kind(frames: TracebackType) -> str:
    """Whose output a frame of ours passes on, if it says."""
    owner = frames.tb_frame.f_locals.get("self")
    name = frames.tb_frame.f_code.co_name
    if frames.tb_frame.f_code.co_filename == _HERE + os.path.join("worker", "combine.py"):
        return "combiner" if name.startswith("_combine") else ""
    return {"Mapper": "mapper", "Reducer": "reducer"}.get(type(owner).__name__, "")


def _calls_a_writer(frames: TracebackType) -> bool:
    """Whether a frame of ours has called the function that encodes a record, or a part of one."""
    if not frames.tb_frame.f_code.co_filename.startswith(_HERE) or frames.tb_next is None:
        return False
    called = frames.tb_next.tb_frame.f_code
    variables = frames.tb_frame.f_locals
    writers = (json_dumps, variables.get("write"))
    return any(getattr(writer, "__code__", None) is called for writer in writers)


def _short(value: Any) -> str:
    """A value for people: cut, and whatever its own code does."""
    try:
        return _REPR.repr(value).encode("ascii", "backslashreplace").decode()
    except Exception:
        return f"of type {type(value).__name__}"


def _user_traceback(error: BaseException) -> str:
    """The traceback from the first frame that is not ours."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_HERE):
        tb = tb.tb_next
    if tb is None:
        tb = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, tb))
