"""The journal: every accepted event, on the drive before its commands go out.

A coordinator that was killed starts again from it. SQLite in write-ahead mode: a process killed at any
moment leaves a journal that opens, with a last transaction that is whole or absent. Each event has a
checksum of its own besides, so that a damaged one ends the replay there instead of being believed.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from zmqmr.core import scheduler
from zmqmr.core.scheduler import Event

VERSION = 1
_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        scheduler.WorkerJoined,
        scheduler.WorkerLost,
        scheduler.Reported,
        scheduler.JobSubmitted,
        scheduler.JobCancelled,
        scheduler.ClientAttached,
        scheduler.CoordinatorRestarted,
        scheduler.AttemptSilent,
        scheduler.CommitOverdue,
        scheduler.WorkersMissing,
    )
}
_encode = msgspec.msgpack.Encoder().encode


class Journal:
    """The journal of one coordinator, at a path that no other coordinator uses."""

    def __init__(self, path: str):
        """Open or make it. A file that is no journal is put aside as PATH.damaged."""
        self.path = path
        self._decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {}
        try:
            self._database = self._open()
        except sqlite3.DatabaseError:
            os.replace(path, f"{path}.damaged")
            self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # survives the process; a power cut may cost the tail
        database.execute(
            "CREATE TABLE IF NOT EXISTS event"
            " (number INTEGER PRIMARY KEY, version INTEGER, time REAL, kind TEXT, body BLOB, crc32 INTEGER)"
        )
        return database

    def append(self, events: list[tuple[float, Event]]) -> None:
        """Write events with their times, all or none. sqlite3.Error when they cannot be written."""
        rows = []
        for time, event in events:
            kind, body = type(event).__name__, _encode(event)
            rows.append((VERSION, time, kind, body, _checksum(time, kind, body)))
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT INTO event (version, time, kind, body, crc32) VALUES (?, ?, ?, ?, ?)", rows
        )
        self._database.execute("COMMIT")

    def replay(self) -> Iterator[tuple[float, Event]]:
        """The events in order, up to the first that cannot be believed."""
        try:
            rows = self._database.execute(
                "SELECT version, time, kind, body, crc32 FROM event ORDER BY number"
            )
            for version, time, kind, body, crc32 in rows:
                if version != VERSION or kind not in _KINDS or crc32 != _checksum(time, kind, body):
                    return
                yield time, self._decoder(kind).decode(body)
        except (sqlite3.DatabaseError, msgspec.MsgspecError, TypeError):
            return  # what is readable was replayed; workers say what else they hold

    def cut(self, count: int) -> None:
        """Forget all but the first `count` events: those after them were not believed."""
        self._database.execute(
            "DELETE FROM event WHERE number NOT IN (SELECT number FROM event ORDER BY number LIMIT ?)",
            (count,),
        )

    def _decoder(self, kind: str) -> "msgspec.msgpack.Decoder[Any]":
        decoder = self._decoders.get(kind)
        if decoder is None:
            decoder = self._decoders[kind] = msgspec.msgpack.Decoder(_KINDS[kind])
        return decoder

    def close(self) -> None:
        self._database.close()


def _checksum(time: float, kind: str, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(f"{time!r} {kind}".encode()))
