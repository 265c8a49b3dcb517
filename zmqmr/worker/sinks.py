"""Where an attempt's records go: into its spool and, over ZeroMQ, to partitions of others; or into a file."""

import bz2
import gzip
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any
from zlib import crc32

from zmqmr.data.codecs import json_dumps, line_writer, writer_kind
from zmqmr.data.spools import SpoolWriter
from zmqmr.errors import LineTooLong
from zmqmr.messages import FrameCount, Partitioner
from zmqmr.net.frames import BUFFERED_BYTES, largest_payload
from zmqmr.worker.delivery import Delivery
from zmqmr.worker.partitions import spill_error

if TYPE_CHECKING:
    from zmqmr.worker.attempt import Attempt

Pairs = Iterable[tuple[Any, Any]]
Writer = Callable[[Any, Any], bytes]

# A record inside a marked shuffle has one byte after its key's TAB that says whether it had a TAB.
# The order of the bytes is that of the records: without TAB first.
WITHOUT_TAB = b"\x00"
WITH_TAB = b"\x01"


def unmark(line: bytes) -> bytes:
    """The record that was marked."""
    key, _, rest = line.partition(b"\t")
    return key + b"\t" + rest[1:] if rest[:1] == WITH_TAB else key


def unmark_block(block: bytes) -> bytes:
    """A block of marked records as they were, each with its newline."""
    return b"".join(unmark(line) + b"\n" for line in lines_of(block))


def lines_of(block: bytes) -> list[bytes]:
    """The lines of a block, without their newlines."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


class Shuffle:
    """Writes records into the attempt's spool, and sends those of other hosts' partitions there at once."""

    def __init__(self, attempt: "Attempt", writer: Writer | None, marked: bool):
        """`writer` encodes what the stage yields; None when lines come from a command. `marked`: records
        may lack a TAB, so each says whether it had one."""
        launch, settings = attempt.launch, attempt.settings
        self._attempt = attempt
        self._count = launch.partitions
        self._write = line_writer(writer) if writer is not None else None
        self._marked = marked
        step = attempt.spec.steps[launch.links[-1][0]] if launch.links else attempt.spec.steps[0]
        self._partition_key = _partition_key(step.partitioner)
        self._capacity = min(BUFFERED_BYTES, self._count * settings.frame_bytes)
        self.room = self._capacity
        self._largest = largest_payload(settings)
        as_json = (
            writer is not None
            and writer_kind(writer) == "json"
            and self._partition_key is None
            and not marked
        )
        self._text = as_json  # buffers hold str, one character a byte: ASCII, unless the job wrote the line
        self._buffers: list[list[Any]] = [[] for _ in range(self._count)]
        self.add_all: Callable[[Pairs], None] = self._add_json if as_json else self._add_encoded
        try:
            self._spool = SpoolWriter(attempt.run.output)
        except OSError as error:
            raise spill_error(error, attempt.run.output) from error
        self._delivery = Delivery(attempt)

    def _add_json(self, pairs: Pairs) -> None:
        buffers, count = self._buffers, self._count
        room = self.room
        dumps = json_dumps
        for key, value in pairs:
            text = dumps(key)
            line = f"{text}\t{dumps(value)}\n"
            buffers[crc32(text.encode()) % count].append(line)
            room -= len(line)
            if room < 0:
                self._flush()
                room = self._capacity
        self.room = room

    def _add_encoded(self, pairs: Pairs) -> None:
        write = self._write
        assert write is not None
        if self._marked:
            self.add_lines(_split_newlines(write(key, value) for key, value in pairs))
        else:
            self.add_lines(write(key, value) for key, value in pairs)

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Records as encoded lines without newline."""
        for line in lines:
            key, tab, value = line.partition(b"\t")
            chosen = key if self._partition_key is None else self._partition_key(line)
            if self._marked:
                line = key + b"\t" + (WITH_TAB + value if tab else WITHOUT_TAB)
            record: Any = line + b"\n"
            if self._text:
                record = record.decode("latin-1")
            self._buffers[crc32(chosen) % self._count].append(record)
            self.room -= len(record)
            if self.room < 0:
                self._flush()

    def _flush(self) -> None:
        attempt = self._attempt
        attempt.stay_ourselves()
        self.room = self._capacity
        blocks = []
        for partition, records in enumerate(self._buffers):
            if records:
                payload = "".join(records).encode("latin-1") if self._text else b"".join(records)
                attempt.output_records += len(records)
                attempt.output_bytes += len(payload)
                records.clear()
                if len(payload) > self._largest:
                    raise self._too_long(payload)
                blocks.append((partition, payload))
        try:
            self._spool.add(blocks)
        except OSError as error:
            raise spill_error(error, self._spool.path) from error
        for partition, payload in blocks:
            self._delivery.send(partition, payload)

    def _too_long(self, payload: bytes) -> LineTooLong:
        return LineTooLong(
            f"the job yields a record of about {len(payload)} bytes, too long to shuffle;"
            " yield smaller values or raise ZMQMR_MAX_LINE_BYTES",
            self._attempt.position.path,
        )

    def close(self) -> tuple[FrameCount, ...]:
        """Write and send the rest; what was yielded for each partition."""
        self._flush()
        try:
            parts = self._spool.close()
        except OSError as error:
            raise spill_error(error, self._spool.path) from error
        self._delivery.finish()
        self._attempt.undelivered = tuple(sorted(self._delivery.undelivered))
        return self._delivery.counts(parts)


class File:
    """Writes records as lines to the attempt's output file."""

    def __init__(self, attempt: "Attempt", writer: Writer | None):
        self._attempt = attempt
        self._path = attempt.run.output
        self._write = line_writer(writer) if writer is not None else None
        try:
            self._file = _open_output(self._path, attempt.run.compress)
        except OSError as error:
            raise spill_error(error, self._path) from error
        self._lines: list[bytes] = []
        self._size = self._crc32 = 0  # of all that was written, before it is compressed
        self.room = BUFFERED_BYTES

    def add_all(self, pairs: Pairs) -> None:
        write, append = self._write, self._lines.append
        assert write is not None
        for key, value in pairs:
            line = write(key, value)
            append(line)
            self.room -= len(line) + 1
            if self.room < 0:
                self._flush()

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Records as encoded lines without newline."""
        for line in lines:
            self._lines.append(line)
            self.room -= len(line) + 1
            if self.room < 0:
                self._flush()

    def _flush(self) -> None:
        self._attempt.stay_ourselves()
        if self._lines:
            self._attempt.output_records += len(self._lines)
            self._lines.append(b"")
            data = b"\n".join(self._lines)
            self._attempt.output_bytes += len(data)
            self._size, self._crc32 = self._size + len(data), crc32(data, self._crc32)
            self._lines.clear()
            try:
                self._file.write(data)
            except OSError as error:
                raise spill_error(error, self._path) from error
        self.room = BUFFERED_BYTES

    def close(self) -> tuple[FrameCount, ...]:
        """Write the rest and close the file; what it holds, for whoever reads it."""
        self._flush()
        try:
            self._file.close()
        except OSError as error:
            raise spill_error(error, self._path) from error
        return (FrameCount(0, 0, self._size, self._crc32),)


Sink = Shuffle | File


def _open_output(path: str, compress: str) -> IO[bytes]:
    if compress == "gz":
        return gzip.GzipFile(filename="", mode="wb", fileobj=open(path, "wb"), mtime=0)  # type: ignore[return-value]
    if compress == "bz2":
        return bz2.open(path, "wb")
    return open(path, "wb", buffering=0)


def _split_newlines(lines: Iterable[bytes]) -> Iterable[bytes]:
    """A record with a newline inside is several records: that is what reading lines makes of it."""
    for line in lines:
        if b"\n" in line:
            yield from lines_of(line + b"\n")
        else:
            yield line


def _partition_key(partitioner: Partitioner) -> Callable[[bytes], bytes] | None:
    """The bytes of a line that choose its partition; None: those before its first TAB."""
    if partitioner.kind == "key":
        return None
    separator = partitioner.separator.encode()
    first, last = partitioner.first - 1, partitioner.last or None
    whole = separator == b"\t"  # then the key may have several of the line's fields

    def fields(line: bytes) -> bytes:
        key = line if whole else line.partition(b"\t")[0]
        return separator.join(key.split(separator)[first:last])

    return fields
