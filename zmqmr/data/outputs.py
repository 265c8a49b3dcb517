"""The output directory: new or empty, locked while the job runs, completed by `_SUCCESS` or undone."""

import bz2
import errno
import fcntl
import gzip
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import IO, cast
from urllib.parse import unquote, urlsplit

from zmqmr.errors import InputTruncated, OutOfDisk, SpillError, UsageError

SUCCESS = "_SUCCESS"
TEMPORARY = "_temporary"  # below an output directory: where attempts write until they commit
SKIPPED = "skipped"  # in an attempt's directory: the records it left out; with a _ before it, in the output's
BLOCK_BYTES = 1024**2  # of a part, as it is streamed
_PART = re.compile(r"^part-(\d+)(\.gz|\.bz2)?$")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


def local_path(path: str) -> str:
    """The absolute path for a path or a file:// URI; UsageError for any other URI."""
    if path.lower().startswith("file://"):
        parts = urlsplit(path)
        if parts.netloc not in ("", "localhost"):
            raise UsageError(f"{path} names a file of another host; use file:///path")
        return os.path.abspath(unquote(parts.path))
    if _SCHEME.match(path):
        raise UsageError(f"{path} is not on a local or mounted file system; give a path or a file:// URI")
    return os.path.abspath(path)


class OutputDirectory:
    """One directory that a job writes to. `claim` it before any work, then `commit` or `discard` it.

    The directory must be new or empty. While it is claimed no other job can claim it, where the
    file system has locks. `discard` leaves the directories that were there before the job, emptied.
    """

    def __init__(self, path: str, option: str = "--output-dir"):
        self.path = path  # absolute
        self._option = option  # named in messages
        self._made: list[str] = []  # directories that did not exist, outermost first
        self._lock = -1

    def claim(self) -> None:
        """Make and lock the directory; UsageError when it is in use, not empty or not writable."""
        try:
            self._make()
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            self._take_lock()
            if os.listdir(self.path):
                raise UsageError(
                    f"the output directory {self.path} is not empty; remove it or give another {self._option}"
                )
            self._check_writable()
        except UsageError:
            self._undo()
            raise
        except OSError as error:
            self._undo()
            reason = error.strerror or str(error)
            raise UsageError(
                f"cannot write to the output directory {self.path}: {reason}; give another {self._option}"
            ) from error

    @property
    def made(self) -> tuple[str, ...]:
        """The directories that were not there before `claim`, the outermost first."""
        return tuple(self._made)

    def commit(self, directories: Sequence[str] = ()) -> None:
        """Write `_SUCCESS` into `directories`, then into this one, and release the lock.

        What was renamed into them before is on the drive then. SpillError when it cannot be written.
        """
        try:
            for directory in (*directories, self.path):
                shutil.rmtree(os.path.join(directory, TEMPORARY), ignore_errors=True)
                _write_success(directory)
        except OSError as error:
            kind = OutOfDisk if error.errno == errno.ENOSPC else SpillError
            raise kind(f"cannot complete the output in {self.path}: {error.strerror}", self.path) from error
        self.release()

    def discard(self) -> None:
        """Remove what the job wrote, and the directories that it made; never fails."""
        with suppress(OSError):
            # It was empty when it was claimed, so all that is in it belongs to the job.
            for entry in os.scandir(self.path):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        os.unlink(entry.path)
        self._undo()

    def _make(self) -> None:
        missing = []
        path = self.path
        while not os.path.lexists(path):
            missing.append(path)
            path = os.path.dirname(path)
        for path in reversed(missing):
            with suppress(FileExistsError):  # another job makes the same parents
                os.mkdir(path)
                self._made.append(path)

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another job is writing to the output directory {self.path}; give another {self._option}"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise

    def _check_writable(self) -> None:
        probe = os.path.join(self.path, f".zmqmr-{os.getpid()}")
        os.mkdir(probe)
        os.rmdir(probe)

    def _undo(self) -> None:
        remove_empty_directories(self._made)
        self._made = []
        self.release()

    def release(self) -> None:
        """Give the lock up; a process that was forked meanwhile goes on holding it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_empty_directories(paths: Sequence[str]) -> None:
    """Remove directories that a job had made, the outermost first in `paths`; one that somebody else uses
    stays."""
    for path in reversed(paths):
        with suppress(OSError):
            os.rmdir(path)


def _write_success(directory: str) -> None:
    with open(os.path.join(directory, SUCCESS), "wb") as file:
        os.fsync(file.fileno())
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parts(directory: str) -> list[str]:
    """The paths of the part files in `directory`, by part number."""
    return [os.path.join(directory, name) for name in part_names(os.listdir(directory))]


def part_names(names: Iterable[str]) -> list[str]:
    """Those of `names` that are part files', by part number."""
    matches = [match for match in map(_PART.match, names) if match]
    return [match[0] for match in sorted(matches, key=lambda match: (int(match[1]), match[0]))]


def stream(paths: Sequence[str]) -> Iterator[bytes]:
    """The contents of `paths`, decompressed, in blocks of at most 1 MiB; b"" between two files.

    InputTruncated when a compressed part is damaged.
    """
    for number, path in enumerate(paths):
        if number:
            yield b""
        with _open(path) as file:
            try:
                while block := file.read(BLOCK_BYTES):
                    yield block
            except (EOFError, gzip.BadGzipFile) as error:
                raise InputTruncated(
                    f"the output part {path} is damaged: {error}; run the job again", path
                ) from error


def _open(path: str) -> IO[bytes]:
    if path.endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.endswith(".bz2"):
        return bz2.open(path, "rb")
    return open(path, "rb")
