"""Inputs for workers that cannot read the client's files: each split as one blob.

A blob holds the lines of a split's pieces one after the other, so a worker gets what its task reads and
nothing else. Compressed files stay compressed.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from zmqmr.data.inputs import byte_range, raw_range
from zmqmr.errors import InputVanished
from zmqmr.messages import InputFile, Pushed, Split
from zmqmr.store_messages import Blob


@dataclass(frozen=True)
class Range:
    """Bytes of a file, and where they are in the blob."""

    file: InputFile
    start: int
    end: int
    offset: int  # in the blob


@dataclass(frozen=True)
class SplitBlob:
    """The blob of one split, which is read from the input files whenever it is needed."""

    blob: Blob
    ranges: tuple[Range, ...]

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the blob. InputVanished when a file is gone; that one changed shows in the digest."""
        parts = []
        for each in self.ranges:
            start = each.start + max(0, offset - each.offset)
            end = min(each.end, each.start + offset + length - each.offset)
            if start < end:
                parts.append(_pread(each.file.path, start, end - start))
        return b"".join(parts)

    def check_unchanged(self) -> None:
        """InputVanished, naming it, when a file is not what it was when the job was planned."""
        for each in self.ranges:
            for _ in raw_range(each.file, each.start, each.start):
                pass


def push_splits(splits: tuple[Split, ...]) -> Iterator[tuple[Split, SplitBlob | None]]:
    """Each split with its pieces in a blob, and the blob; None for a split without any piece. Reads all
    of the input once. InputError and InputVanished as in `read_blocks`."""
    for split in splits:
        yield _push(split) if split.pieces else (split, None)


def _push(split: Split) -> tuple[Split, SplitBlob]:
    digest, offset = hashlib.sha256(), 0
    ranges = []
    for piece in split.pieces:
        start, end = byte_range(piece)
        end = max(start, end)
        ranges.append(Range(piece.file, start, end, offset))
        for block in raw_range(piece.file, start, end):
            digest.update(block)
        offset += end - start
    blob = Blob(digest.hexdigest(), offset)
    pieces = tuple(
        replace(piece, pushed=Pushed(blob.sha256, each.offset, each.end - each.start, each.start))
        for piece, each in zip(split.pieces, ranges, strict=True)
    )
    return Split(pieces), SplitBlob(blob, tuple(ranges))


def fetched(split: Split | None, path: str) -> Split | None:
    """The split on a worker that has its blob in the file `path`; unchanged when it was not pushed."""
    if split is None or blob_of(split) is None:
        return split
    return Split(tuple(replace(piece, pushed=_at(piece.pushed, path)) for piece in split.pieces))


def _at(pushed: Pushed | None, path: str) -> Any:
    return replace(pushed, path=path) if pushed is not None else None


def blob_of(split: Split | None) -> Blob | None:
    """The blob that holds a split; None when it was not pushed."""
    parts = [piece.pushed for piece in split.pieces if piece.pushed is not None] if split is not None else []
    return Blob(parts[0].blob, sum(part.size for part in parts)) if parts else None


def _pread(path: str, start: int, length: int) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return os.pread(file.fileno(), length, start)
    except OSError as error:
        raise InputVanished(
            f"{path} cannot be read any longer: {error.strerror}; it was there when the job was planned", path
        ) from error
