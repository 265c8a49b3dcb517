"""The job's input files: finds them, pins them, and reads them as blocks of whole lines.

A file is pinned (size, modification time) when the job is planned. Whoever reads it later compares,
so that no job mixes two versions of a file. Every failure is an InputError that names the file.
"""

import contextlib
import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

from zmqmr.core.splits import whole
from zmqmr.data.decompress import CODECS, decompressed
from zmqmr.errors import (
    InputError,
    InputTruncated,
    InputVanished,
    LineTooLong,
    OutOfDisk,
    SpillError,
    UsageError,
    is_full,
)
from zmqmr.messages import InputFile, Piece, Split
from zmqmr.words import counted

MAX_NLINE_SPLITS = 100_000
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NOT_FILES = ("/dev/stdin", "/dev/fd/", "/proc/")  # another thing in every process
_READ_BYTES = 128 * 1024  # of compressed data, and when a file is copied or scanned
_COPY_BYTES = 1024 * 1024  # when it is only hashed


def list_inputs(paths: Iterable[str]) -> list[InputFile]:
    """The input files that the arguments `paths` stand for, pinned as they are now.

    An argument is a local path, a `file:///` URI or a glob of either; a directory stands for all files
    below it, through symbolic links too. Arguments keep their order, the files of one are sorted by
    path, and a file named twice is there twice. InputError if an argument stands for no file, or a file
    cannot be read, is not a regular one, or has a name that is not UTF-8.
    """
    return [_pinned(path) for argument in paths for path in _files(argument)]


def read_blocks(piece: Piece, *, block_bytes: int, max_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The lines of `piece` in blocks, as (offset of the block's first byte, block).

    A block is one or more whole lines; each ends with a newline, except the last of the file perhaps.
    The piece owns the lines that start in [start, start + length). Offsets are in the decompressed
    content for a compressed file. Holds about twice `block_bytes` and twice the longest line in memory.

    LineTooLong if a line has more than `max_line_bytes` bytes, its newline not counted. InputVanished
    if the file is not as it was pinned, checked at the start and again after the last block.
    InputTruncated if compressed data is damaged. InputError if the file cannot be read.
    """
    file = piece.file
    size = min(block_bytes, max_line_bytes)  # so that a line inside one read is never too long
    if piece.pushed is not None:
        yield from _pushed_blocks(piece, size, max_line_bytes)
        return
    with _opened(file) as descriptor:
        if file.codec:
            content = decompressed(_reads(descriptor, file, _READ_BYTES), file.codec, file.path)
            yield from _lines(file.path, _regrouped(content, size), 0, None, max_line_bytes)
        elif piece.length:
            end = piece.start + piece.length
            start, rest = _first_line(descriptor, piece, size)
            if start < end:
                reads = _reads(descriptor, file, size, start + len(rest))
                chunks = _chain(rest, reads)
                yield from _lines(file.path, chunks, start, end, max_line_bytes)


def nline_splits(
    files: Iterable[InputFile], lines_per_map: int, *, max_splits: int = MAX_NLINE_SPLITS
) -> tuple[Split, ...]:
    """Splits of `lines_per_map` lines each, as Hadoop's NLineInputFormat makes them.

    Reads every plain file once to find its lines. A split never spans files, so the last of a file may
    have fewer lines. A compressed file is one split, however many lines it has, and an empty file is
    one split of none. UsageError if `lines_per_map` is less than 1 or there would be more than
    `max_splits` splits; InputError and InputVanished as in `read_blocks`.
    """
    if lines_per_map < 1:
        raise UsageError(
            f"the number of lines for each map task is {lines_per_map}; "
            "set mapreduce.input.lineinputformat.linespermap to 1 or more"
        )
    splits: list[Split] = []
    for file in files:
        for piece in [whole(file)] if file.codec else _nline_pieces(file, lines_per_map):
            splits.append(Split((piece,)))
            if len(splits) > max_splits:
                raise UsageError(
                    f"{lines_per_map} lines for each map task make more than {max_splits} tasks; "
                    "set mapreduce.input.lineinputformat.linespermap to a larger number"
                )
    return tuple(splits)


def byte_range(piece: Piece) -> tuple[int, int]:
    """Where the lines of a piece begin and end in its file, on the disk. InputError and InputVanished as in
    `read_blocks`."""
    if piece.file.codec:
        return 0, piece.file.size
    with _opened(piece.file) as descriptor:
        start = _line_start(descriptor, piece.file, piece.start)
        return start, _line_start(descriptor, piece.file, piece.start + piece.length)


def raw_range(file: InputFile, start: int, end: int) -> Iterator[bytes]:
    """The bytes of a file from `start` to `end`, as they are on the disk, in blocks. InputError and
    InputVanished as in `read_blocks`."""
    with _opened(file) as descriptor:
        yield from _cut(_reads(descriptor, file, _COPY_BYTES, start), end - start)


def copy_decompressed(piece: Piece, destination: str) -> None:
    """Write the content of the file of `piece`, decompressed if it is compressed, to the new file
    `destination`.

    After a failure no `destination` is left. InputError, InputVanished and InputTruncated as in
    `read_blocks`; SpillError, or OutOfDisk, if `destination` cannot be written.
    """
    file = piece.file
    try:
        with contextlib.ExitStack() as stack:
            if piece.pushed is not None:
                content = _pushed_bytes(piece, _READ_BYTES)
            else:
                content = _reads(stack.enter_context(_opened(file)), file, _READ_BYTES)
            if file.codec:
                content = decompressed(content, file.codec, file.path)
            _write(content, destination)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(destination)
        raise


def raw_name(path: str) -> str:
    """The name of the file at `path` without its directory and the extension of its compression."""
    name = os.path.basename(path)
    stem, extension = os.path.splitext(name)
    return stem if extension in CODECS else name


# --- finding ---------------------------------------------------------------------------------


def _files(argument: str) -> list[str]:
    """The absolute paths that one argument stands for, sorted; never none."""
    path = _local_path(argument)
    found = glob.glob(path) if glob.has_magic(path) else [path]
    if not found and os.path.lexists(path):
        found = [path]  # a file whose very name has glob characters
    if not found:
        raise InputError(f"no file matches the input {argument}. Check the pattern.", argument)
    files: list[str] = []
    for match in found:
        absolute = str(Path(match).absolute())  # keeps "..", which a symbolic link may precede
        if stat.S_ISDIR(_stat(absolute, argument).st_mode):
            files.extend(_below(absolute))
        else:
            files.append(absolute)
    if not files:
        raise InputError(f"the input directory {argument} holds no files. Name one that does.", argument)
    return sorted(files)


def _local_path(argument: str) -> str:
    if argument.startswith("file:///"):
        argument = argument.removeprefix("file://")
    elif _URI.match(argument):
        raise InputError(
            f"the input {argument} is not a local file. zmqmr reads local paths, file:/// URIs, globs and "
            "directories, and standard input as `-`: download it or mount its file system first.",
            argument,
        )
    if not argument or "\0" in argument:
        raise InputError(f"the input {argument!r} is not a path. Check the arguments.", argument)
    return argument


def _stat(path: str, argument: str = "") -> os.stat_result:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        link = " is a symbolic link to nothing" if os.path.islink(path) else " does not exist"
        raise InputError(f"the input {path}{link}. Check the name.", argument or path) from error
    except OSError as error:
        raise _unreadable(path, None, error) from error


def _below(top: str) -> Iterator[str]:
    """Every file below a directory. Two links to one directory give its files twice, as in mrjob."""
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [(top, ())]
    while pending:
        directory, above = pending.pop()
        status = _stat(directory)
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            raise InputError(
                f"the input directory {directory} is a symbolic link to a directory it is in, so it has no "
                "end. Remove the link, or name the files instead of the directory.",
                directory,
            )
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir():
                        pending.append((entry.path, (*above, identity)))
                    else:
                        yield entry.path
        except OSError as error:
            raise _unreadable(directory, None, error) from error


def _pinned(path: str) -> InputFile:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"the file name {path!r} is not valid UTF-8. Rename the file.", path) from None
    status = _stat(path)
    if not stat.S_ISREG(status.st_mode) or path.startswith(_NOT_FILES):
        raise InputError(
            f"the input {path} is not a regular file. To read a pipe or standard input, "
            "give `-` as the input and let the shell redirect into the job.",
            path,
        )
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise InputError(f"cannot read {path}: permission denied. Make it readable for this user.", path)
    codec: Literal["", "gz", "bz2", "zst"] = next(
        (codec for extension, codec in CODECS.items() if path.endswith(extension)), ""
    )
    return InputFile(path, status.st_size, status.st_mtime_ns, codec)


# --- lines -----------------------------------------------------------------------------------


def _lines(
    path: str, chunks: Iterator[bytes], start: int, end: int | None, max_line_bytes: int
) -> Iterator[tuple[int, bytes]]:
    """Cut `chunks`, which begin with a line at offset `start`, after newlines.

    Ends with the line that holds the byte before `end`. No chunk exceeds `max_line_bytes`, so only a
    line that spans chunks can be too long.
    """
    carry: list[bytes] = []  # the beginning of a line, from offset `start` on
    carry_bytes = 0
    for chunk in chunks:
        first = chunk.find(b"\n")
        if carry_bytes + (first if first >= 0 else len(chunk)) > max_line_bytes:
            raise LineTooLong(
                f"{path} has a line of more than {counted(max_line_bytes, 'byte')}, at byte {start}. "
                "If that is right, raise ZMQMR_MAX_LINE_BYTES; the line is held in memory.",
                path,
                start,
            )
        position = start + carry_bytes  # of the chunk
        last = -1
        if end is not None and position + len(chunk) >= end:
            last = chunk.find(b"\n", max(0, end - 1 - position))
        done = last >= 0
        if not done:
            last = chunk.rfind(b"\n")
        if last >= 0:
            carry.append(chunk[: last + 1] if last + 1 < len(chunk) else chunk)
            block = b"".join(carry) if len(carry) > 1 else carry[0]
            yield start, block
            if done:
                return
            start += len(block)
            carry, carry_bytes = [], 0
            chunk = chunk[last + 1 :]
        if chunk:
            carry.append(chunk)
            carry_bytes += len(chunk)
    if carry:
        yield start, b"".join(carry)


def _first_line(descriptor: int, piece: Piece, size: int) -> tuple[int, bytes]:
    """Where the first line that starts in `piece` or after it starts, and the bytes read from there.

    It starts after the first newline at or after the byte before the piece.
    """
    if piece.start == 0:
        return 0, b""
    position = piece.start - 1
    for chunk in _reads(descriptor, piece.file, size, position):
        newline = chunk.find(b"\n")
        if newline >= 0:
            return position + newline + 1, chunk[newline + 1 :]
        position += len(chunk)
        if position >= piece.start + piece.length:
            break  # whatever line comes next is not this piece's
    return max(position, piece.start + piece.length), b""


def _line_start(descriptor: int, file: InputFile, position: int) -> int:
    """Where the first line that starts at or after `position` starts; the file's size when none does."""
    if position == 0 or position >= file.size:
        return min(position, file.size)
    position -= 1
    for chunk in _reads(descriptor, file, _READ_BYTES, position):
        newline = chunk.find(b"\n")
        if newline >= 0:
            return position + newline + 1
        position += len(chunk)
    return file.size


def _nline_pieces(file: InputFile, lines_per_map: int) -> Iterator[Piece]:
    if file.size == 0:
        return iter([whole(file)])
    return (Piece(file, start, end - start) for start, end in pairwise(_line_starts(file, lines_per_map)))


def _line_starts(file: InputFile, step: int) -> Iterator[int]:
    """The offset of every `step`-th line of a plain file, from 0, and the size of the file."""
    yield 0
    position = 0
    missing = step  # newlines until the next offset to yield
    with _opened(file) as descriptor:
        for chunk in _reads(descriptor, file, _READ_BYTES):
            newlines = chunk.count(b"\n")
            at = 0
            while newlines >= missing:
                newlines -= missing
                for _ in range(missing):
                    at = chunk.index(b"\n", at) + 1
                missing = step
                if position + at < file.size:
                    yield position + at
            missing -= newlines
            position += len(chunk)
    yield file.size


# --- bytes -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(file: InputFile) -> Iterator[int]:
    """A descriptor of the file, if it is what was pinned, and still is after the use."""
    try:
        # Not to wait for a writer if a FIFO has taken the file's place.
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputVanished(
            f"{file.path} is gone; it was there when the job was planned. Restore it, or check that every "
            "worker sees the same files under the same paths, and run the job again.",
            file.path,
        ) from error
    except OSError as error:
        raise _unreadable(file.path, None, error) from error
    try:
        _check_pinned(descriptor, file)
        try:
            yield descriptor
        except InputTruncated:
            _check_pinned(descriptor, file)  # a change explains the damage
            raise
        _check_pinned(descriptor, file)
    finally:
        os.close(descriptor)


def _check_pinned(descriptor: int, file: InputFile) -> None:
    try:
        now = os.fstat(descriptor)
    except OSError as error:
        raise _unreadable(file.path, None, error) from error
    if not stat.S_ISREG(now.st_mode):
        raise _changed(file.path, "it is no longer a regular file")
    if now.st_size != file.size:
        raise _changed(file.path, f"its size was {file.size} bytes and is {now.st_size}")
    if now.st_mtime_ns != file.mtime_ns:
        raise _changed(file.path, "its modification time is another, its size the same")


def _reads(descriptor: int, file: InputFile, size: int, position: int = 0) -> Iterator[bytes]:
    """What the file holds from `position` on, in reads of `size` bytes, which must end at its size."""
    while True:
        try:
            block = os.pread(descriptor, size, position)
        except OSError as error:
            raise _unreadable(file.path, position, error) from error
        if not block:
            break
        position += len(block)
        yield block
    if position != file.size:
        raise _changed(file.path, f"its size was {file.size} bytes, and it ends at byte {position}")


def _regrouped(content: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in chunks of exactly `size`, except the last."""
    buffer = bytearray()
    for part in content:
        buffer += part
        if len(buffer) >= size:
            usable = len(buffer) - len(buffer) % size
            for at in range(0, usable, size):
                yield bytes(buffer[at : at + size])
            del buffer[:usable]
    if buffer:
        yield bytes(buffer)


def _pushed_blocks(piece: Piece, size: int, max_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    assert piece.pushed is not None
    file = piece.file
    if file.codec:
        content = decompressed(_pushed_bytes(piece, _READ_BYTES), file.codec, file.path)
        yield from _lines(file.path, _regrouped(content, size), 0, None, max_line_bytes)
    else:
        yield from _lines(file.path, _pushed_bytes(piece, size), piece.pushed.first, None, max_line_bytes)


def _pushed_bytes(piece: Piece, size: int) -> Iterator[bytes]:
    """The bytes of a piece in reads of `size`, from the blob, which was checked when it was fetched."""
    pushed = piece.pushed
    assert pushed is not None
    try:
        with open(pushed.path, "rb", buffering=0) as blob:
            blob.seek(pushed.offset)
            left = pushed.size
            while left:
                block = blob.read(min(size, left))
                if not block:
                    raise InputTruncated(
                        f"the copy of {piece.file.path} on this worker ends early", piece.file.path
                    )
                left -= len(block)
                yield block
    except OSError as error:
        raise _unreadable(pushed.path, None, error) from error


def _cut(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The first `size` bytes of `chunks`."""
    if size <= 0:
        return
    for chunk in chunks:
        yield chunk[:size]
        size -= len(chunk)
        if size <= 0:
            return


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _write(content: Iterable[bytes], destination: str) -> None:
    """Only errors of `destination` are an OSError here: those of the input are InputErrors already."""
    try:
        with open(destination, "wb") as output:
            for block in content:
                output.write(block)
    except OSError as error:
        kind = OutOfDisk if is_full(error) else SpillError
        raise kind(
            f"cannot write {destination}: {error.strerror}. Make room there, or mend it.",
            destination,
        ) from error


def _unreadable(path: str, offset: int | None, error: OSError) -> InputError:
    where = "" if offset is None else f" at byte {offset}"
    return InputError(
        f"cannot read {path}{where}: {error.strerror}. Check the file, its permissions and its drive.",
        path,
        offset,
    )


def _changed(path: str, what: str) -> InputVanished:
    return InputVanished(
        f"{path} changed after the job was planned: {what}. Run the job again when nothing writes to it.",
        path,
    )
