"""A drive of a run's own that can be filled: a tmpfs in a mount namespace that nobody else sees.

Root may make one, and other users where the system allows them user namespaces. It goes with the last
process of the run. It is filled by taking its free room away, so that filling it needs none.
"""

import os
import shutil
import subprocess
import time

FULL_SECONDS = 1.0  # how long the drive has no room
_PROGRAMS = ("unshare", "nsenter", "mount", "sh")
_SCRIPT = 'mount -t tmpfs -o "$0" tmpfs "$1" && shift && exec "$@"'
_TRIES = 20  # to take the room away while the run writes


class SmallDrive:
    """The drive of one run, at a directory that is empty for everybody else."""

    def __init__(self, directory: str):
        self.directory = directory
        self._size = f"size={_memory_bytes() // 2}"

    def room_for(self, peak: int) -> bool:
        """Whether the memory takes a run whose intermediate data have so many bytes."""
        return 2 * peak < _memory_bytes() // 2

    def command(self, command: list[str]) -> list[str]:
        """`command`, with the drive at its place; exec'd, so that it bears the number of the process."""
        user = ["--map-root-user"] if os.geteuid() else []
        return ["unshare", "--mount", *user, "sh", "-c", _SCRIPT, self._size, self.directory, *command]

    def refusal(self) -> str:
        """Why this user cannot have such a drive here; "" when they can."""
        missing = [program for program in _PROGRAMS if shutil.which(program) is None]
        if missing:
            return f"no program {missing[0]!r} on PATH"
        tried = subprocess.run(self.command(["true"]), capture_output=True, text=True)
        if tried.returncode:
            return tried.stderr.strip().partition("\n")[0] or "the system refuses a mount namespace"
        return ""

    def fill(self, pid: int) -> bool:
        """Leave no room on the drive of process `pid` for FULL_SECONDS; False when that was not possible,
        because the run has ended or writes too fast."""
        if not self._take_room(pid):
            return False
        time.sleep(FULL_SECONDS)
        self._resize(pid, self._size)
        return True

    def _take_room(self, pid: int) -> bool:
        for _ in range(_TRIES):
            try:
                status = os.statvfs(f"/proc/{pid}/root{self.directory}")
            except OSError:
                return False
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            if used and self._resize(pid, f"size={used}"):  # 0 would be no limit
                return True
        return False

    def _resize(self, pid: int, size: str) -> bool:
        user = ["--user", "--preserve-credentials"] if os.geteuid() else []
        enter = ["nsenter", "--target", str(pid), "--mount", *user]
        remount = ["mount", "--internal-only", "-o", f"remount,{size}", "tmpfs", self.directory]
        return not subprocess.run([*enter, *remount], capture_output=True).returncode


def _memory_bytes() -> int:
    """Of the machine that is available now."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
