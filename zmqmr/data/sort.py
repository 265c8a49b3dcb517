"""GNU sort: sorted runs and their merge. Whole lines in byte order; a failure is an error."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress

from zmqmr.errors import OutOfDisk, SpillError, UsageError

_MERGE_AT_ONCE = 500  # runs that one merge may hold open
_PIPE_BYTES = 1024**2  # between whoever feeds a sort and the sort
_STDERR_BYTES = 2000  # of sort's own message kept


def check_sort(sort: Sequence[str]) -> None:
    """UsageError unless the sort program exists."""
    if shutil.which(sort[0]) is None:
        raise UsageError(
            f"no program {sort[0]!r} on PATH: zmqmr sorts with GNU sort (Debian, Ubuntu: package coreutils);"
            " install it or name it with --sort-bin"
        )


def _command(sort: Sequence[str], memory: str, directory: str) -> list[str]:
    return [
        sort[0],
        f"--buffer-size={memory}",
        "--parallel=1",
        f"--temporary-directory={directory}",
        *sort[1:],
    ]


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def start_sort(sort: Sequence[str], memory: str, directory: str, target: str) -> "subprocess.Popen[bytes]":
    """Start sorting the lines of its standard input, a pipe, into file `target`; temporary files go to
    `directory`."""
    process = subprocess.Popen(
        [*_command(sort, memory, directory), f"--output={target}"],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
    )
    assert process.stdin is not None
    with suppress(OSError):  # the limit of pipes of an unprivileged user may be reached
        fcntl.fcntl(process.stdin.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return process


def check_sorted(process: "subprocess.Popen[bytes]", directory: str) -> None:
    """SpillError, with sort's own words, unless the ended process succeeded."""
    assert process.stderr is not None
    with process.stderr:
        words = process.stderr.read(_STDERR_BYTES).decode("utf-8", "replace").strip()
    if process.wait():
        raise sort_error(process.returncode, words, directory)


def sort_error(code: int, words: str, directory: str) -> SpillError:
    """What a failed sort means."""
    text = f"sort failed (exit {code}) in {directory}: {words or 'it said nothing'}"
    if "No space left" in words:
        return OutOfDisk(f"{text}; free space there, or set TMPDIR to a larger drive", directory)
    return SpillError(text, directory)


def merged(
    runs: Sequence[str], sort: Sequence[str], memory: str, directory: str, block_bytes: int
) -> Iterator[bytes]:
    """The lines of sorted runs in order, as blocks of whole lines, about `block_bytes` each."""
    if not runs:
        return
    if len(runs) == 1:
        with open(runs[0], "rb", buffering=0) as file:
            yield from _whole_lines(file.fileno(), block_bytes)
        return
    command = [
        *_command(sort, memory, directory),
        "--merge",
        f"--batch-size={min(len(runs), _MERGE_AT_ONCE)}",
    ]
    process = subprocess.Popen(
        [*command, "--", *runs],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process:
        try:
            yield from _whole_lines(process.stdout.fileno(), block_bytes)
        except GeneratorExit:
            process.kill()
            raise
        check_sorted(process, directory)


def _whole_lines(fd: int, block_bytes: int) -> Iterator[bytes]:
    """Blocks that end with a newline; sort ends every line with one."""
    rest = b""
    while data := os.read(fd, block_bytes):
        end = data.rfind(b"\n") + 1
        if end:
            yield rest + data[:end]
            rest = data[end:]
        else:
            rest += data
    if rest:
        yield rest
