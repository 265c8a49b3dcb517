"""Every error a user can meet, one class each, with the exit code it ends a command with.

A message is whole sentences on the user's terms: what happened, where (host, step, task, attempt,
path, offset) and what to do. Nothing here does I/O.
"""

import errno

EXIT_OK = 0
EXIT_JOB_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130


class ZmqmrError(Exception):
    """Base of everything zmqmr raises on purpose; `exit_code` is what a command ends with."""

    exit_code = EXIT_JOB_FAILED


class UsageError(ZmqmrError):
    """The command, an option or a setting cannot be used as given; nothing was started."""

    exit_code = EXIT_USAGE


class SettingsError(UsageError):
    """A setting cannot be used; the message names the variable to change."""


class JobFileError(UsageError):
    """The job file does not import, or holds no job or more than one."""


class CoordinatorUnreachable(ZmqmrError):
    """No answer from the coordinator before the deadline, or it ended."""

    exit_code = EXIT_UNREACHABLE


class ProtocolError(ZmqmrError):
    """The peer sent bytes that are not a message: drop the peer, not the job."""


class InputError(ZmqmrError):
    """An input cannot be read. `path` and, where known, `offset` (bytes from its start,
    of the decompressed stream for a compressed file) say where."""

    def __init__(self, message: str, path: str = "", offset: int | None = None):
        super().__init__(message)
        self.path = path
        self.offset = offset


class InputVanished(InputError):
    """The input was removed or changed after the job was planned."""


class InputTruncated(InputError):
    """A compressed input ends early or fails its checksum."""


class LineTooLong(InputError):
    """A line exceeds the cap `ZMQMR_MAX_LINE_BYTES`."""


class SpillError(ZmqmrError):
    """Writing or reading intermediate data on a drive failed; `path` says where."""

    def __init__(self, message: str, path: str = ""):
        super().__init__(message)
        self.path = path


class OutOfDisk(SpillError):
    """A drive is full."""


class Corrupt(SpillError):
    """Bytes read back, or received, differ from those written."""


def is_full(error: OSError) -> bool:
    """Whether it says that a drive is full, or that the user may have no more of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
