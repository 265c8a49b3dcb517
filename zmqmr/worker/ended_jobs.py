"""What jobs that ended have left on the drives of a cluster's worker, for a later run with --resume.

It goes by age, by size, or because the drive is short of room.
"""

import os
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from zmqmr.data import places

FREE_SHARE = 0.2  # of a drive that jobs which run may need: what is kept gives way


@dataclass(frozen=True)
class _Left:
    path: str
    ended: float  # when its job did, seconds since 1970
    bytes: int


class EndedJobs:
    """The directories of jobs that ended, below those of an agent, one for each drive."""

    def __init__(self, directories: Collection[str], days: float, most_bytes: int):
        """`days` it is kept at most, and `most_bytes` on each drive."""
        self._directories = directories
        self._seconds = days * 86400.0
        self._most_bytes = most_bytes
        self._sizes: dict[tuple[str, float], int] = {}  # of a directory as it was at a time

    def sweep(self, running: Collection[str]) -> None:
        """Remove what is too old or too much, the oldest first; nothing of jobs `running`. Never fails."""
        now = time.time()
        sizes, self._sizes = self._sizes, {}
        for directory in self._directories:
            left = sorted(self._left(directory, running, sizes), key=lambda each: each.ended, reverse=True)
            total = 0
            for each in left:
                total += each.bytes
                if now - each.ended > self._seconds or total > self._most_bytes:
                    shutil.rmtree(each.path, ignore_errors=True)
            for each in reversed(left):
                if not _is_short(directory):
                    break
                shutil.rmtree(each.path, ignore_errors=True)

    def _left(
        self, directory: str, running: Collection[str], sizes: dict[tuple[str, float], int]
    ) -> list[_Left]:
        found = []
        with suppress(OSError):
            for entry in list(os.scandir(directory)):
                if entry.name in running or not entry.is_dir(follow_symlinks=False):
                    continue
                with suppress(OSError):
                    # A directory's time is that of the last file which came or went.
                    key = entry.path, os.stat(os.path.join(entry.path, places.SPOOLS)).st_mtime
                    self._sizes[key] = sizes[key] if key in sizes else places.size(entry.path)
                    found.append(_Left(*key, self._sizes[key]))
        return found


def _is_short(directory: str) -> bool:
    with suppress(OSError):
        drive = os.statvfs(directory)
        return drive.f_bavail < FREE_SHARE * drive.f_blocks
    return False
