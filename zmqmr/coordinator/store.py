"""The store's files: blobs named by the sha256 of their bytes, on the coordinator's drive.

    DIRECTORY/blobs/SHA256         a whole blob, verified
    DIRECTORY/partial/SHA256       one that is on its way
    DIRECTORY/jobs/JOB/SHA256      a link to a blob that the job needs

A blob with no link from a job is kept for a while, for the next job with the same files, and is the first to
go when room is needed. What is on its way when the coordinator ends is put anew.
"""

import errno
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress

from zmqmr.errors import OutOfDisk, SpillError, UsageError, is_full
from zmqmr.store_messages import Blob

RESERVE_BYTES = 64 * 1024**2  # of the drive left to the coordinator's journal
PARTIAL_SECONDS = 600.0  # a partial blob that nobody goes on with is given up
IDLE_SECONDS = 120.0  # ... or sooner, when another needs its place or its room
LOOK_BYTES = 8 * 1024**2  # of a doubted blob at a time


class _Partial:
    """A blob on its way."""

    def __init__(self, size: int):
        self.size = size
        self.bytes = 0  # that it has
        self.digest = hashlib.sha256()
        self.touched = time.monotonic()


class BlobStore:
    """One directory of blobs, used by one thread. Paths are made of digests and job ids only."""

    def __init__(self, directory: str, keep_seconds: float, max_bytes: int = 0):
        """`keep_seconds`: how long the blobs of a job that does not run wait for its client, and a blob of no
        job for the next. `max_bytes` of all blobs together; 0: as much as the drive has."""
        self._blobs, self._partials, self._jobs = (
            os.path.join(directory, name) for name in ("blobs", "partial", "jobs")
        )
        self._keep_seconds, self._max_bytes = keep_seconds, max_bytes
        self._coming: dict[str, _Partial] = {}
        shutil.rmtree(self._partials, ignore_errors=True)
        for path in (self._blobs, self._partials, self._jobs):
            os.makedirs(path, mode=0o700, exist_ok=True)
        self._held = sum(entry.stat().st_size for entry in os.scandir(self._blobs))

    # --- what is there -----------------------------------------------------------------------

    def size(self, sha256: str) -> int | None:
        """The size of a whole blob, None when there is none."""
        try:
            return os.stat(self._path(sha256)).st_size
        except FileNotFoundError:
            return None

    def claim(self, job: str, blob: Blob) -> bool:
        """Keep a blob for a job; whether it is there."""
        if self.size(blob.sha256) != blob.size:
            return False
        self._link(job, blob.sha256)
        return True

    def read(self, sha256: str, offset: int, length: int) -> bytes | None:
        """Bytes of a blob; None when it is not there. SpillError when it cannot be read."""
        try:
            with open(self._path(sha256), "rb", buffering=0) as file:
                return os.pread(file.fileno(), length, offset)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed("read", self._path(sha256), error) from error

    # --- what comes in -----------------------------------------------------------------------

    @property
    def coming(self) -> int:
        """How many blobs are on their way."""
        return len(self._coming)

    def is_coming(self, sha256: str) -> bool:
        return sha256 in self._coming

    def offer(self, job: str, blob: Blob) -> int:
        """A blob is about to come, or goes on; how many of its bytes are there. OutOfDisk without room for
        it, UsageError when its size is another one than before."""
        if self.claim(job, blob):
            return blob.size
        partial = self._coming.get(blob.sha256)
        if partial is None:
            self._make_room(blob.size)
            self._begin(blob.sha256)
            partial = self._coming[blob.sha256] = _Partial(blob.size)
        elif partial.size != blob.size:
            raise UsageError(f"the blob {blob.sha256} has {partial.size} bytes elsewhere, here {blob.size}")
        if blob.size == 0:
            self._finish(job, blob.sha256, partial)
        return partial.bytes

    def put(self, job: str, sha256: str, offset: int, data: bytes) -> int | None:
        """Add a chunk, if it is the next one; how many bytes are there then, None when the blob was not
        offered. UsageError when the blob is complete and not what its name says: it is gone then.
        OutOfDisk, SpillError when it cannot be written."""
        partial = self._coming.get(sha256)
        if partial is None:
            size = self.size(sha256)
            if size is not None:
                self._link(job, sha256)
            return size
        if offset == partial.bytes:
            partial.touched = time.monotonic()
            if offset + len(data) > partial.size:
                self._give_up(sha256)
                raise UsageError(f"the blob {sha256} is longer than its {partial.size} bytes")
            self._append(sha256, offset, data)
            partial.digest.update(data)
            partial.bytes += len(data)
            if partial.bytes == partial.size:
                self._finish(job, sha256, partial)
        return partial.bytes

    def _begin(self, sha256: str) -> None:
        path = self._partial_path(sha256)
        try:
            with open(path, "wb"):
                pass
        except OSError as error:
            raise _failed("write", path, error) from error

    def _append(self, sha256: str, offset: int, data: bytes) -> None:
        path = self._partial_path(sha256)
        try:
            with open(path, "r+b", buffering=0) as file:
                file.seek(offset)
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._give_up(sha256)
            raise _failed("write", path, error) from error

    def _finish(self, job: str, sha256: str, partial: _Partial) -> None:
        if partial.digest.hexdigest() != sha256:
            self._give_up(sha256)
            raise UsageError(
                f"what was sent as the blob {sha256} has another sha256; it changed while it was sent"
            )
        path = self._partial_path(sha256)
        try:
            # A commit counts on it: the name must not be there before the bytes are.
            with open(path, "rb") as file:
                os.fdatasync(file.fileno())
            os.rename(path, self._path(sha256))
        except OSError as error:
            self._give_up(sha256)
            raise _failed("write", path, error) from error
        del self._coming[sha256]
        self._held += partial.size
        self._link(job, sha256)

    def give_way(self, idle_seconds: float = IDLE_SECONDS) -> None:
        """Give up the blobs on their way of which nothing has come for so long."""
        oldest = time.monotonic() - idle_seconds
        for sha256 in [sha for sha, partial in self._coming.items() if partial.touched < oldest]:
            self._give_up(sha256)

    def _give_up(self, sha256: str) -> None:
        del self._coming[sha256]
        with suppress(OSError):
            os.unlink(self._partial_path(sha256))

    def _make_room(self, size: int) -> None:
        """Let go what nobody goes on with, and blobs of no job, those first that were not used for longest.
        None of these when that would not do."""
        if not self._fits(size):
            self.give_way()
        loose = sorted(self._loose()) if not self._fits(size) else []
        if self._fits(size - sum(held for _, _, held in loose)):
            for _, path, held in loose:
                if self._fits(size):
                    break
                self._remove_blob(path, held)
            return
        limit = (
            f"its limit is {self._max_bytes} (ZMQMR_STORE_BYTES)" if self._max_bytes else "its drive is full"
        )
        raise OutOfDisk(
            f"the coordinator's store has no room for {size} bytes more: {limit};"
            " end jobs, fetch their output, or give it more room",
            self._blobs,
        )

    def _fits(self, size: int) -> bool:
        coming = sum(partial.size for partial in self._coming.values())
        if self._max_bytes and self._held + coming + size > self._max_bytes:
            return False
        written = sum(partial.bytes for partial in self._coming.values())
        drive = os.statvfs(self._blobs)
        return drive.f_bavail * drive.f_frsize - (coming - written) - size >= RESERVE_BYTES

    # --- what goes ---------------------------------------------------------------------------

    def release(self, job: str, drop: Iterable[str] = ()) -> None:
        """The job needs its blobs no longer; those of `drop` go at once unless another job needs them."""
        shutil.rmtree(os.path.join(self._jobs, job), ignore_errors=True)
        for sha256 in drop:
            with suppress(FileNotFoundError):
                status = os.stat(self._path(sha256))
                if status.st_nlink == 1:
                    self._remove_blob(self._path(sha256), status.st_size)

    def look(self, sha256: str) -> Iterator[None]:
        """Read a blob, a part of it at each step, and let it go, whoever needs it, if it is not what its name
        says: nobody could use it, nor put it again while it is there."""
        path, digest = self._path(sha256), hashlib.sha256()
        with suppress(FileNotFoundError):
            with open(path, "rb", buffering=0) as file:
                found = os.fstat(file.fileno())
                with suppress(OSError):  # what cannot be read is damaged
                    while data := file.read(LOOK_BYTES):
                        digest.update(data)
                        yield
            if digest.hexdigest() == sha256 or not os.path.samestat(found, os.stat(path)):
                return
            print(f"zmqmr coordinator: the blob {path} is damaged and goes", file=sys.stderr)
            self._remove_blob(path, found.st_size)
            for job in os.scandir(self._jobs):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(job.path, sha256))

    def sweep(self, running: Collection[str]) -> None:
        """Remove what has waited too long: blobs on their way, ended jobs' blobs, blobs of no job."""
        self.give_way(PARTIAL_SECONDS)
        oldest = time.time() - self._keep_seconds
        for entry in list(os.scandir(self._jobs)):
            if entry.name in running:
                os.utime(entry.path)  # from when on it does not run
            elif entry.stat().st_mtime < oldest:
                shutil.rmtree(entry.path, ignore_errors=True)
        for used, path, size in list(self._loose()):
            if used < oldest:
                self._remove_blob(path, size)

    def _loose(self) -> Iterable[tuple[float, str, int]]:
        """Blobs of no job: when each was last used, its path and size."""
        for entry in os.scandir(self._blobs):
            status = entry.stat()
            if status.st_nlink == 1:
                yield status.st_mtime, entry.path, status.st_size

    def _remove_blob(self, path: str, size: int) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path)
            self._held -= size

    # --- paths -------------------------------------------------------------------------------

    def _path(self, sha256: str) -> str:
        return os.path.join(self._blobs, sha256)

    def _partial_path(self, sha256: str) -> str:
        return os.path.join(self._partials, sha256)

    def _link(self, job: str, sha256: str) -> None:
        directory = os.path.join(self._jobs, job)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.link(self._path(sha256), os.path.join(directory, sha256))
            os.utime(self._path(sha256))
            os.utime(directory)
        except OSError as error:
            raise _failed("write", directory, error) from error


def _failed(what: str, path: str, error: OSError) -> SpillError:
    kind = OutOfDisk if is_full(error) else SpillError
    return kind(f"the coordinator's store cannot {what} {path}: {error.strerror}", path)
