"""A shuffle frame: a header that says whose records these are, and the records."""

import zlib
from typing import Annotated

import msgspec
from msgspec import Meta

from zmqmr.errors import Corrupt
from zmqmr.messages import decode, encode

Count = Annotated[int, Meta(ge=0)]


class FrameHeader(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Whose records a frame holds. `sequence` counts the attempt's frames to one partition from 0."""

    job: Annotated[str, Meta(max_length=200)]
    stage: Count
    task: Annotated[str, Meta(max_length=200)]
    attempt: Count
    partition: Count
    sequence: Count
    crc32: Count


def pack(
    job: str, stage: int, task: str, attempt: int, partition: int, sequence: int, payload: bytes
) -> list[bytes]:
    """The parts of a frame. `payload`: whole lines, each with its newline."""
    header = FrameHeader(job, stage, task, attempt, partition, sequence, zlib.crc32(payload))
    return [encode(header), payload]


def unpack(parts: list[bytes]) -> tuple[FrameHeader, bytes]:
    """Header and payload; ProtocolError for anything that is not a frame, Corrupt when the
    payload is not what was sent."""
    if len(parts) != 2:
        parts = [b"", b""]
    header: FrameHeader = decode(parts[0], FrameHeader)
    if zlib.crc32(parts[1]) != header.crc32:
        raise Corrupt(f"a frame of {header.task} to partition {header.partition} fails its checksum")
    return header, parts[1]
