"""The log of a job: what its client said, and why attempts failed, one JSON object a line."""

import json
import logging
import os
import time
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from zmqmr.client.progress import RUN_ALONE, SKIP_IT, STDERR_LINES, STORY, WORDS, explain, shortened
from zmqmr.messages import AttemptReport, JobUpdate

MAX_BYTES = 8 * 1024**2  # of a log; what comes after that is not kept
_LOGGER = logging.getLogger("mrjob")


class JobLog(logging.Handler):
    """Keeps what is logged while it is open, from INFO on, and each failed attempt in full.

    Entries: time (seconds since 1970), level, text, and failure: true for an explained failure. Losing
    an entry never harms the job.
    """

    def __init__(self, path: str, steps: int, elsewhere: bool):
        """`elsewhere`: the job's hosts are not this one."""
        super().__init__(logging.INFO)
        self._path = path
        self._steps = steps
        self._elsewhere = elsewhere
        self._size = 0
        self.pid = os.getpid()  # tasks inherit the loggers of the client: they are not to write here

    def open(self) -> None:
        _LOGGER.addHandler(self)

    def close(self) -> None:
        _LOGGER.removeHandler(self)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "of_a_failure", False):  # of that `failure` keeps all
            level = record.levelname.lower()
            self._append({"time": record.created, "level": level, "text": record.getMessage()})

    def note(self, message: AttemptReport | JobUpdate) -> None:
        """Keep what a message says of a failed attempt: its explanation."""
        if isinstance(message, AttemptReport):
            self._failure(message)

    def _failure(self, report: AttemptReport) -> None:
        level = "error" if report.final else "warning"
        text = explain(report, self._steps, self._elsewhere)
        self._append({"time": time.time(), "level": level, "text": text, "failure": True})

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        if os.getpid() != self.pid or self._size + len(line) > MAX_BYTES:
            return
        self._size += len(line)
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError:
            pass  # the drive is full, or the directory was removed


class Fold:
    """Tells of failed attempts that are alike only once in full."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def text(self, entry: dict[str, Any]) -> str:
        """What is to be said of the next entry of a log."""
        text: str = entry["text"]
        if not entry.get("failure"):
            return text
        what = essence(text)
        if what in self._told:
            return f"{text.partition(chr(10))[0]} in the same way"
        self._told.add(what)
        return text if entry.get("level") == "error" else text.partition(f"\n{STORY}")[0]


def essence(text: str) -> str:
    """What attempts that fail alike have in common, of an explanation."""
    lines = text.partition(f"\n{STORY}")[0].split("\n")[1:]
    return "\n".join(line for line in lines if not line.startswith((RUN_ALONE, SKIP_IT)))


def brief(text: str) -> str:
    """An explanation with no more of the task's standard error than is shown while the job runs."""
    before, title, rest = text.partition(f"\n  {WORDS}:\n")
    if not title:
        return text
    lines = rest.split("\n")
    words = list(takewhile(lambda line: line.startswith("    "), lines))
    return "\n".join([before, *shortened(WORDS, words, STDERR_LINES), *lines[len(words) :]])


def entries(path: str, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """The entries of a log from an offset on, each with the offset after it. A line that is not
    finished is left for later; one that is damaged is left out."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError:
        return
    with file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("text"), str):
                yield start, entry
