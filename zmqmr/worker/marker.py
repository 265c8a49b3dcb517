"""Which record an attempt is about to process, noted where it outlives the attempt's process."""

import mmap
import os
import struct
from dataclasses import dataclass

_HEADER = struct.Struct("<qIII")  # offset, bytes of the path, bytes of the record kept, of all of it
_SIZE = 8192
_RECORD_BYTES = 1024  # of the record kept
_NAME = "marker"


@dataclass(frozen=True)
class Noted:
    """The record that was noted last."""

    path: str
    offset: int  # bytes
    record: bytes  # or its start
    whole: bool


class Marker:
    """A page of shared memory, backed by a file in the attempt's directory."""

    def __init__(self, directory: str):
        with open(os.path.join(directory, _NAME), "w+b") as file:
            file.truncate(_SIZE)
            self._page = mmap.mmap(file.fileno(), _SIZE)

    def note(self, path: str, offset: int, record: bytes) -> None:
        """The record at `offset` of `path` comes next."""
        name = path.encode("utf-8", "surrogateescape")[: _SIZE - _HEADER.size - _RECORD_BYTES]
        kept = record[:_RECORD_BYTES]
        data = _HEADER.pack(offset, len(name), len(kept), len(record)) + name + kept
        self._page[: len(data)] = data


def read_marker(directory: str) -> Noted | None:
    """What was noted last in an attempt's directory, if anything was."""
    try:
        with open(os.path.join(directory, _NAME), "rb") as file:
            data = file.read()
    except OSError:
        return None
    offset, name_size, kept, size = _HEADER.unpack_from(data)
    start = _HEADER.size + name_size
    if not name_size:
        return None
    path = data[_HEADER.size : start].decode("utf-8", "surrogateescape")
    return Noted(path, offset, data[start : start + kept], kept == size)
