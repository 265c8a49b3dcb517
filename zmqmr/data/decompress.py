"""Decompresses .gz, .bz2 and .zst streams, whole and checked, in bounded memory.

Every member (stream, frame) of a file is read. A file that ends early, fails a checksum or has other
bytes between or after its members is an error: none of it may be lost in silence. Zero bytes after a
member are padding, as gzip(1) has it. A file of no bytes holds nothing.
A .zst frame written without a checksum (zstd(1) writes one) cannot be checked: its end is, its bytes not.
"""

import bz2
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Protocol

import zstandard

from zmqmr.errors import InputTruncated

Codec = Literal["gz", "bz2", "zst"]
CODECS: dict[str, Codec] = {".gz": "gz", ".bz2": "bz2", ".zst": "zst"}  # file name extension -> codec

# An output limit: a megabyte of input may expand a thousandfold.
_OUTPUT_BYTES = 256 * 1024
# zstandard has no output limit, so it gets its input in slices: 512 bytes expand to at most 16 MiB.
_ZSTD_INPUT_BYTES = 512


def decompressed(blocks: Iterable[bytes], codec: str, path: str) -> Iterator[bytes]:
    """The content of a compressed stream, given and yielded in blocks of any size.

    InputTruncated, with `path` and the offset in the content, if the stream ends early, does not pass
    its checksum, or is not in the format `codec` ("gz", "bz2" or "zst") at all.
    """
    make = _MEMBERS[codec]
    member: _Member | None = None
    members = 0  # that have ended
    offset = 0
    try:
        for block in blocks:
            while block:
                if member is None:
                    block = block.lstrip(b"\0") if members else block
                    if not block:
                        break
                    member = make()
                for content in member.feed(block):
                    offset += len(content)
                    yield content
                block = member.unused if member.ended else b""
                if member.ended:
                    member, members = None, members + 1
    except _DECOMPRESSOR_ERRORS as error:
        raise InputTruncated(
            f"{path} is not valid .{codec} data in its member {members + 1}, after {offset} bytes of its "
            f"content: {error}. It is damaged, or its name has the wrong extension: restore or rename it "
            "and run the job again.",
            path,
            offset,
        ) from error
    if member is not None:
        raise InputTruncated(
            f"{path} ends in the middle of its compressed data, after {offset} bytes of its content. "
            "It was not copied or written completely: copy it again and run the job again.",
            path,
            offset,
        )


class _Member(Protocol):
    ended: bool
    unused: bytes  # what followed the member in the last block

    def feed(self, block: bytes) -> Iterator[bytes]: ...


class _Gzip:
    def __init__(self) -> None:
        self.ended = False
        self.unused = b""
        self._inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # 16: with gzip's frame and CRC

    def feed(self, block: bytes) -> Iterator[bytes]:
        while not self.ended:
            content = self._inflate.decompress(block, _OUTPUT_BYTES)
            if content:
                yield content
            block = self._inflate.unconsumed_tail
            self.ended, self.unused = self._inflate.eof, self._inflate.unused_data
            if not block and len(content) < _OUTPUT_BYTES:  # at the limit there may be more to come
                return


class _Bzip2:
    def __init__(self) -> None:
        self.ended = False
        self.unused = b""
        self._decompressor = bz2.BZ2Decompressor()

    def feed(self, block: bytes) -> Iterator[bytes]:
        while not self.ended:
            content = self._decompressor.decompress(block, _OUTPUT_BYTES)
            if content:
                yield content
            block = b""
            self.ended = self._decompressor.eof
            if self.ended:
                self.unused = self._decompressor.unused_data
            elif self._decompressor.needs_input:
                return


class _Zstandard:
    def __init__(self) -> None:
        self.ended = False
        self.unused = b""
        self._frame = zstandard.ZstdDecompressor().decompressobj()

    def feed(self, block: bytes) -> Iterator[bytes]:
        for at in range(0, len(block), _ZSTD_INPUT_BYTES):
            content = self._frame.decompress(block[at : at + _ZSTD_INPUT_BYTES])
            if content:
                yield content
            if self._frame.eof:
                self.ended = True
                self.unused = self._frame.unused_data + block[at + _ZSTD_INPUT_BYTES :]
                return


_MEMBERS: dict[str, Callable[[], _Member]] = {"gz": _Gzip, "bz2": _Bzip2, "zst": _Zstandard}
_DECOMPRESSOR_ERRORS = (zlib.error, OSError, ValueError, zstandard.ZstdError)
