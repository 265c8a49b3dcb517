"""A shuffle frame: a header that says whose records these are, and the records."""

import zlib
from typing import Annotated

import msgspec
from msgspec import Meta

from zmqmr.errors import Corrupt
from zmqmr.messages import Name, decode, encode
from zmqmr.settings import Settings

Count = Annotated[int, Meta(ge=0)]
BUFFERED_BYTES = 4 * 1024**2  # of records that an attempt holds back, of all partitions, before it sends


def largest_payload(settings: Settings) -> int:
    """Bytes of the largest payload: all that is held back is one partition's, and a longest line comes."""
    return BUFFERED_BYTES + settings.max_line_bytes


class FrameHeader(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Whose records a frame holds. `sequence` counts the attempt's frames to one partition from 0. `version`:
    of the stage's owners that the attempt was launched with."""

    job: Name
    stage: Count
    task: Name
    attempt: Count
    version: Count
    partition: Count
    sequence: Count
    crc32: Count  # of the other fields and the payload

    def checksum(self, payload: bytes) -> int:
        """What `crc32` must be."""
        owner = self.job, self.stage, self.task, self.attempt, self.version
        return zlib.crc32(payload, zlib.crc32(encode((*owner, self.partition, self.sequence))))


class CorruptFrame(Corrupt):
    """A frame is not what was sent. `header` says whose it is, unless that is what was damaged."""

    def __init__(self, header: FrameHeader):
        number, owner = header.sequence, f"{header.task} to partition {header.partition}"
        super().__init__(f"frame {number} of {owner} fails its checksum")
        self.header = header


def pack(
    job: str,
    stage: int,
    task: str,
    attempt: int,
    version: int,
    partition: int,
    sequence: int,
    payload: bytes,
) -> list[bytes]:
    """The parts of a frame. `payload`: whole lines, each with its newline."""
    header = FrameHeader(job, stage, task, attempt, version, partition, sequence, 0)
    return [encode(msgspec.structs.replace(header, crc32=header.checksum(payload))), payload]


def unpack(parts: list[bytes]) -> tuple[FrameHeader, bytes]:
    """Header and payload; ProtocolError for anything that is not a frame, CorruptFrame when it is not
    what was sent."""
    if len(parts) != 2:
        parts = [b"", b""]
    header: FrameHeader = decode(parts[0], FrameHeader)
    if header.checksum(parts[1]) != header.crc32:
        raise CorruptFrame(header)
    return header, parts[1]
