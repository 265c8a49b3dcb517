"""The journal: every accepted event, on the drive before its commands go out.

A coordinator that was killed starts again from it. SQLite in write-ahead mode: a process killed at any
moment leaves a journal that opens, with a last transaction that is whole or absent. Each event has a
checksum of its own besides, so that a damaged one ends the replay there instead of being believed.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import msgspec

from zmqmr.core import events
from zmqmr.core.events import Event

VERSION = 1
_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        events.WorkerJoined,
        events.WorkerLost,
        events.WorkerDrained,
        events.WorkerKept,
        events.JobsRemembered,
        events.Reported,
        events.JobSubmitted,
        events.JobCancelled,
        events.ClientAttached,
        events.CoordinatorRestarted,
        events.AttemptSilent,
        events.CommitOverdue,
        events.AttemptSlow,
        events.WaitOver,
        events.WorkersMissing,
        events.OpeningOverdue,
        events.ClientMissing,
    )
}
_TABLE = "event (number INTEGER PRIMARY KEY, version INTEGER, time REAL, kind TEXT, body BLOB, crc32 INTEGER)"
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
            self._begin_anew()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # survives the process; a power cut may cost the tail
        database.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE}")
        return database

    def _begin_anew(self) -> None:
        """Put the file aside, and what SQLite keeps beside it, and make another."""
        os.replace(self.path, f"{self.path}.damaged")
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(self.path + suffix)
        self._database = self._open()

    def append(self, events: list[tuple[float, Event]]) -> None:
        """Write events with their times, all or none. sqlite3.Error when they cannot be written."""
        self._write(events, instead=False)

    def replace(self, events: list[tuple[float, Event]]) -> None:
        """Write these events instead of all that is there, or leave it: sqlite3.Error when that fails."""
        self._write(events, instead=True)
        with suppress(sqlite3.OperationalError):  # the room is given back another time
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _write(self, events: list[tuple[float, Event]], instead: bool) -> None:
        rows = []
        for time, event in events:
            kind, body = type(event).__name__, _encode(event)
            rows.append((VERSION, time, kind, body, _checksum(time, kind, body)))
        self._database.execute("BEGIN")
        try:
            if instead:
                self._database.execute("DELETE FROM event")
            self._database.executemany(
                "INSERT INTO event (version, time, kind, body, crc32) VALUES (?, ?, ?, ?, ?)", rows
            )
            self._database.execute("COMMIT")
        except sqlite3.Error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def replay(self) -> Iterator[tuple[float, Event]]:
        """The events in order, up to the first that cannot be believed."""
        try:
            rows = self._database.execute(
                "SELECT number, version, time, kind, body, crc32 FROM event ORDER BY number"
            )
            for expected, (number, version, time, kind, body, crc32) in enumerate(rows, 1):
                if (number, version) != (expected, VERSION):
                    return  # one is missing, or it is another release's
                if kind not in _KINDS or crc32 != _checksum(time, kind, body):
                    return
                yield time, self._decoder(kind).decode(body)
        except (sqlite3.DatabaseError, msgspec.MsgspecError, TypeError):
            return  # what is readable was replayed; workers say what else they hold

    def cut(self, count: int) -> None:
        """Forget all but the first `count` events: those after them were not believed."""
        if self._is_sound():
            self._database.execute("DELETE FROM event WHERE number NOT BETWEEN 1 AND ?", (count,))
            return
        believed = list(islice(self.replay(), count))
        self._database.close()
        self._begin_anew()
        self.append(believed)

    def _is_sound(self) -> bool:
        """Whether the file can be written to: what is damaged may be read, but loses what is added."""
        try:
            tables = self._database.execute("SELECT sql FROM sqlite_master").fetchall()
            check = self._database.execute("PRAGMA integrity_check").fetchall()
        except sqlite3.DatabaseError:
            return False
        return tables == [(f"CREATE TABLE {_TABLE}",)] and check == [("ok",)]

    def _decoder(self, kind: str) -> "msgspec.msgpack.Decoder[Any]":
        decoder = self._decoders.get(kind)
        if decoder is None:
            decoder = self._decoders[kind] = msgspec.msgpack.Decoder(_KINDS[kind])
        return decoder

    def close(self) -> None:
        self._database.close()


def _checksum(time: float, kind: str, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(f"{time!r} {kind}".encode()))
