"""Spools: what an attempt yielded for a shuffle, in one file, partition by partition.

The attempt appends blocks of records as they come and closes the file with an index. The sorts of partitions
on the same host read from it; to other hosts it is sent while it is written, and again from here when they
are lost. Beside a kept spool stands its attempt's report, so that the task need never run again.

    block, block, ..., index (MessagePack), length of the index (8 bytes), its CRC-32 (4), magic (8)
"""

import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

from zmqmr.data.seals import damaged
from zmqmr.errors import Corrupt
from zmqmr.messages import AttemptDone, Struct, encode

_TRAILER = struct.Struct("<QI8s")
_MAGIC = b"zmqmrsp1"
_BLOCK_BYTES = 256 * 1024
_WRITE_AT_ONCE = 512  # buffers, of the 1024 that Linux takes
_SPOOL, _REPORT = ".spool", ".done"


class Part(Struct, frozen=True, array_like=True):
    """One partition's records in a spool."""

    partition: int
    bytes: int
    crc32: int  # of all of them, in order
    extents: tuple[tuple[int, int], ...]  # where in the file: start, bytes


_decoder = msgspec.msgpack.Decoder(tuple[Part, ...])
_reports = msgspec.msgpack.Decoder(AttemptDone)


class SpoolWriter:
    """A spool that grows. OSError when it cannot be written."""

    def __init__(self, path: str):
        self.path = path
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115  closed by close()
        self._size = 0
        self._extents: dict[int, list[tuple[int, int]]] = {}
        self._sums: dict[int, tuple[int, int]] = {}  # bytes and CRC-32 so far

    def add(self, blocks: Sequence[tuple[int, bytes]]) -> None:
        """Append blocks, each for its partition."""
        for start in range(0, len(blocks), _WRITE_AT_ONCE):
            self._write([block for _, block in blocks[start : start + _WRITE_AT_ONCE]])
        for partition, block in blocks:
            extents = self._extents.setdefault(partition, [])
            if extents and sum(extents[-1]) == self._size:
                extents[-1] = (extents[-1][0], extents[-1][1] + len(block))
            else:
                extents.append((self._size, len(block)))
            size, crc32 = self._sums.get(partition, (0, 0))
            self._sums[partition] = size + len(block), zlib.crc32(block, crc32)
            self._size += len(block)

    def _write(self, blocks: list[bytes]) -> None:
        written = os.writev(self._file.fileno(), blocks)
        if written < sum(map(len, blocks)):
            rest = memoryview(b"".join(blocks))[written:]
            while rest:
                rest = rest[self._file.write(rest) or 0 :]

    def close(self) -> tuple[Part, ...]:
        """Write the index; the parts, in the order of the partitions."""
        parts = tuple(
            Part(partition, *self._sums[partition], tuple(self._extents[partition]))
            for partition in sorted(self._extents)
        )
        index = encode(parts)
        self._write([index, _TRAILER.pack(len(index), zlib.crc32(index), _MAGIC)])
        self._file.close()
        return parts


class Spool:
    """A finished spool. Corrupt when it is not what was written."""

    def __init__(self, path: str):
        self.path = path
        self.parts = {part.partition: part for part in _read_index(path)}

    def blocks(self, partition: int) -> Iterator[bytes]:
        """A partition's records; Corrupt at their end, or before it, if they are not what was written."""
        part = self.parts.get(partition)
        if part is None:
            return
        crc32 = 0
        try:
            with open(self.path, "rb", buffering=0) as file:
                for start, length in part.extents:
                    while length:
                        block = os.pread(file.fileno(), min(length, _BLOCK_BYTES), start)
                        if not block:
                            raise damaged(self.path)
                        crc32 = zlib.crc32(block, crc32)
                        start, length = start + len(block), length - len(block)
                        yield block
        except OSError as error:
            raise Corrupt(f"cannot read the spool {self.path}: {error.strerror}", self.path) from error
        if crc32 != part.crc32:
            raise damaged(self.path)


def _read_index(path: str) -> tuple[Part, ...]:
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            start = size - _TRAILER.size
            if start < 0:
                raise damaged(path)
            length, crc32, magic = _TRAILER.unpack(os.pread(file.fileno(), _TRAILER.size, start))
            if magic != _MAGIC or length > start:
                raise damaged(path)
            index = os.pread(file.fileno(), length, start - length)
    except OSError as error:
        raise Corrupt(f"cannot read the spool {path}: {error.strerror}", path) from error
    if zlib.crc32(index) != crc32:
        raise damaged(path)
    try:
        return _decoder.decode(index)
    except msgspec.MsgspecError as error:
        raise damaged(path) from error


class Shelf:
    """The kept spools of a job on one drive, by content key."""

    def __init__(self, directory: str):
        self.directory = directory

    def path(self, key: str) -> str:
        return os.path.join(self.directory, key + _SPOOL)

    def list_keys(self) -> list[str]:
        """Of all that are kept whole."""
        try:
            names = set(os.listdir(self.directory))
        except OSError:
            return []
        found = [name.removesuffix(_SPOOL) for name in sorted(names) if name.endswith(_SPOOL)]
        return [key for key in found if key + _REPORT in names]

    def keep(self, key: str, path: str, report: AttemptDone) -> None:
        """Take over the spool at `path`, unless there is one with that key. OSError when it cannot be."""
        target = self.path(key)
        if os.path.exists(target):
            return
        os.makedirs(self.directory, exist_ok=True)
        body = encode(report)
        side = os.path.join(self.directory, key + _REPORT)
        with open(f"{side}.new", "wb") as file:
            file.write(zlib.crc32(body).to_bytes(4, "little") + body)
        os.replace(f"{side}.new", side)
        os.replace(path, target)

    def report(self, key: str) -> AttemptDone:
        """The report of the attempt that wrote a kept spool; Corrupt when there is none."""
        path = os.path.join(self.directory, key + _REPORT)
        try:
            with open(path, "rb") as file:
                data = file.read()
            if zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
                raise damaged(path)
            return _reports.decode(data[4:])
        except OSError as error:
            raise Corrupt(f"cannot read {path}: {error.strerror}", path) from error
        except msgspec.MsgspecError as error:
            raise damaged(path) from error

    def take_over(self, other: "Shelf", key: str) -> None:
        """Move a spool from another shelf here; one that cannot be moved stays."""
        with suppress(OSError):
            os.makedirs(self.directory, exist_ok=True)
            for suffix in (_REPORT, _SPOOL):  # a spool without its report is none
                shutil.move(
                    os.path.join(other.directory, key + suffix),
                    os.path.join(self.directory, key + suffix),
                )

    def drop(self, key: str) -> None:
        """Forget a spool."""
        for suffix in (_SPOOL, _REPORT):
            with suppress(OSError):
                os.unlink(os.path.join(self.directory, key + suffix))
