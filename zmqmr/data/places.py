"""Where a job's intermediate data are: a directory of its own, which outlives whoever works in it.

    <base>/zmqmr-<uid>/<job>/session   the client's files and the journal; of use while the job runs
                             agent     the agent's; <job>/spools in it is of use to a job that resumes
                             output    of a job whose output goes to standard output

The base survives a reboot, unless TMPDIR or the option local_tmp_dir names one that does not.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress

from zmqmr.errors import UsageError

SESSION, AGENT, OUTPUT, SPOOLS = "session", "agent", "output", "spools"
ASIDE = ".ended-"  # first in the names of directories in an agent's that are being removed
_TRIES = 100  # to make a directory whose parent somebody else removes as empty


def base_directory(given: str | None) -> str:
    """The base: `given` if it is, else TMPDIR, else /var/tmp or whatever can be written."""
    if given:
        return os.path.abspath(given)
    if directory := os.environ.get("TMPDIR"):
        return os.path.abspath(directory)
    return "/var/tmp" if os.access("/var/tmp", os.W_OK | os.X_OK) else tempfile.gettempdir()


def own_directory(base: str) -> str:
    """The directory of this user's jobs below a base."""
    return os.path.join(base, f"zmqmr-{os.geteuid()}")


def make(base: str, job: str) -> str:
    """Make the directory of a job, with an empty session, private; OSError when that is not possible.

    UsageError when the directory of this user's jobs belongs to somebody else.
    """
    own = own_directory(base)
    data = os.path.join(own, job)
    for left in reversed(range(_TRIES)):
        try:
            os.makedirs(base, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(own, 0o700)
            _check_owner(own)
            os.mkdir(data, 0o700)
            os.mkdir(os.path.join(data, SESSION), 0o700)
            return data
        except FileNotFoundError:  # another job has just removed it, as empty
            if not left:
                raise
    raise AssertionError


def _check_owner(own: str) -> None:
    status = os.lstat(own)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise UsageError(
            f"{own} must be a directory that is yours alone (mode 0700); remove it or set local_tmp_dir"
        )


def lock(directory: str) -> int:
    """Lock a directory for this process and those it forks; the descriptor to close, or -1 when another
    process holds it. OSError when there is no such directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return -1
    except OSError:
        pass  # a file system without locks
    return descriptor


def spools(data: str, job: str) -> str:
    """Where the agent keeps what a later run of `job` can use."""
    return os.path.join(data, AGENT, job, SPOOLS)


def clear_agent(directory: str) -> None:
    """Remove all in an agent's directory but the spools of its jobs; never fails."""
    for job in _entries(directory):
        if job.is_dir(follow_symlinks=False):
            clear_job(job.path, keep=True)
        else:
            _remove(job.path)


def clear_job(directory: str, keep: bool) -> None:
    """Remove all in an agent's directory of a job, but for its spools if they are to be kept; never fails."""
    if not keep:
        shutil.rmtree(directory, ignore_errors=True)
        return
    for entry in _entries(directory):
        if entry.name != SPOOLS:
            _remove(entry.path)
    for path in (os.path.join(directory, SPOOLS), directory):
        _remove_empty(path)


def set_aside(directory: str, keep: bool) -> str:
    """Do the same at once, however much there is: move it to a directory beside, which the caller removes.
    "" when nothing can be moved, and all was removed instead."""
    try:
        aside = tempfile.mkdtemp(prefix=ASIDE, dir=os.path.dirname(directory))
    except OSError:
        clear_job(directory, keep)
        return ""
    for number, entry in enumerate(_entries(directory)):
        if not (keep and entry.name == SPOOLS):
            with suppress(OSError):
                os.rename(entry.path, os.path.join(aside, str(number)))
    clear_job(directory, keep)
    return aside


def prune(data: str) -> None:
    """Remove all but the output (a failed job has none) and what a later run can use; never fails."""
    clear_agent(os.path.join(data, AGENT))
    for entry in _entries(data):
        if entry.name not in (AGENT, OUTPUT):
            _remove(entry.path)
    for name in (AGENT, OUTPUT):
        _remove_empty(os.path.join(data, name))
    remove_empty(data)


def remove(data: str) -> None:
    """Remove a job's directory; never fails."""
    shutil.rmtree(data, ignore_errors=True)
    remove_empty(data)


def remove_empty(data: str) -> None:
    """Remove a job's directory, and that of the user's jobs, where they are empty."""
    for path in (data, os.path.dirname(data)):
        _remove_empty(path)


def bundles(directory: str, job: str) -> list[os.DirEntry[str]]:
    """The repro bundles of a job, in the directory where they are kept."""
    return [entry for entry in _entries(directory) if entry.name.startswith(f"{job}-")]


def forget_bundles(directory: str, job: str) -> None:
    """Remove the repro bundles of a job that succeeded: what failed was made good. Never fails."""
    for entry in bundles(directory, job):
        _remove(entry.path)


def size(directory: str) -> int:
    """The bytes of all files below a directory; those that go meanwhile do not count."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _entries(directory: str) -> list["os.DirEntry[str]"]:
    try:
        return list(os.scandir(directory))
    except OSError:
        return []


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)


def _remove_empty(path: str) -> None:
    with suppress(OSError):
        os.rmdir(path)
