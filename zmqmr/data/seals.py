"""Seals of intermediate files: what a file held when it was finished, checked by whoever reads it.

A file that somebody cut, changed or deleted meanwhile, or that the drive gives back with other bytes,
fails its reader instead of changing the job's result.
"""

import os
import zlib

from zmqmr.errors import Corrupt
from zmqmr.messages import Seal

_BLOCK_BYTES = 256 * 1024


def seal(path: str) -> Seal:
    """The seal of a file that is finished. Corrupt when it cannot be read."""
    size = crc32 = 0
    try:
        with open(path, "rb", buffering=0) as file:
            while block := file.read(_BLOCK_BYTES):
                size += len(block)
                crc32 = zlib.crc32(block, crc32)
    except OSError as error:
        raise Corrupt(f"cannot read the intermediate file {path}: {error.strerror}", path) from error
    return Seal(os.path.abspath(path), size, crc32)


def check(sealed: Seal) -> None:
    """Corrupt unless the file is what it was when it was sealed."""
    now = seal(sealed.path)
    if now.bytes != sealed.bytes:
        raise Corrupt(
            f"the intermediate file {sealed.path} has {now.bytes} bytes, {sealed.bytes} were written",
            now.path,
        )
    if now.crc32 != sealed.crc32:
        raise damaged(now.path)


def damaged(path: str) -> Corrupt:
    """What to say of an intermediate file that is not what was written."""
    return Corrupt(
        f"the intermediate file {path} is not what was written; check the drive and the memory", path
    )
