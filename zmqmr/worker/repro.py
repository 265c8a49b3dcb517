"""The repro bundle of a failed attempt: its input up to the failing record, its code, its command line.

`zmqmr replay` runs it in the foreground with mrjob alone. An attempt writes its slice of input as it
fails; the agent adds the rest. Bundles are kept in the state directory, the newest up to a limit.
"""

import io
import os
import tarfile
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from zmqmr import __version__
from zmqmr.core.plan import runs_as_command
from zmqmr.data.inputs import read_blocks
from zmqmr.errors import ZmqmrError
from zmqmr.messages import Failure, JobSpec, Launch, Piece, Split
from zmqmr.settings import MIB, Settings
from zmqmr.worker.marker import Noted, read_marker
from zmqmr.worker.sinks import lines_of, unmark_block
from zmqmr.worker.taskenv import task_env

if TYPE_CHECKING:
    from zmqmr.worker.attempt import Attempt

SLICE = "slice"  # in an attempt's directory
SLICE_BYTES = 16 * MIB  # of input kept: its end, where the failing record is
BUNDLE_BYTES = 64 * MIB  # of a job's files: a job with more has no repro bundle
KEEP_BYTES = 1024 * MIB  # of all bundles
KEEP_FILES = 100
NOT_NOTED = "the attempt ended without a word; only those after it note each record"


class Recipe(msgspec.Struct):
    """What `zmqmr replay` needs besides the files."""

    zmqmr: str  # version that made it
    job: str
    task: str
    attempt: int
    step: int
    kind: str  # mapper or reducer
    script: str
    argv: list[str]
    environment: dict[str, str]
    bundle_sha256: str
    reason: str
    sh: list[str] = []  # runs the setup script
    setup_script: str = ""  # its name in the working directory
    python_path: list[str] = []  # names in the working directory


def save_slice(attempt: "Attempt", marked: bool) -> None:
    """Write the input of a failing attempt, up to and with the record it fails on, into its directory."""
    blocks = _map_input(attempt) if attempt.launch.split is not None else _reduce_input(attempt, marked)
    kept: deque[bytes] = deque()  # cut at its beginning, which a list does slowly
    size = 0
    left = attempt.records + attempt.position.consumed()
    for block in blocks:
        lines = lines_of(block)[:left]
        left -= len(lines)
        kept += lines
        size += sum(map(len, lines))
        while size > SLICE_BYTES:
            size -= len(kept.popleft())
        if not left:
            break
    with open(os.path.join(attempt.directory, SLICE), "wb") as file:
        file.writelines(line + b"\n" for line in kept)


def _map_input(attempt: "Attempt") -> Iterator[bytes]:
    assert attempt.launch.split is not None
    for piece in attempt.launch.split.pieces:
        for _, block in _read(piece, attempt.settings):
            yield block


def _reduce_input(attempt: "Attempt", marked: bool) -> Iterator[bytes]:
    blocks = attempt.merged_runs()
    return map(unmark_block, blocks) if marked else blocks


def with_bundle(
    spec: JobSpec, launch: Launch, directory: str, failure: Failure, settings: Settings
) -> Failure:
    """Make the bundle of a failed attempt; the failure with its path, or with why there is none. Never raises
    an error of the drive or of the input."""
    if failure.damaged or failure.no_room:
        return failure  # no fault of the job's
    try:
        why_not = _find_slice(spec, launch, directory, failure, settings)
        if why_not:
            return replace(failure, no_repro=why_not)
        return replace(failure, repro=_keep_bundle(spec, launch, directory, failure, settings))
    except (OSError, ZmqmrError) as error:
        return replace(failure, no_repro=f"it cannot be made: {error}")


def _find_slice(spec: JobSpec, launch: Launch, directory: str, failure: Failure, settings: Settings) -> str:
    """Why there can be no bundle; "" when there is a slice of the input, left by the attempt or made here of
    what a crashed one had noted."""
    if not launch.links:
        return "the task runs none of the job's code"
    if os.path.getsize(spec.bundle) > BUNDLE_BYTES:
        return f"the job's files have more than {BUNDLE_BYTES // MIB} MiB"
    if os.path.exists(os.path.join(directory, SLICE)):
        return ""
    if spec.input_mode != "lines":
        return "the task reads whole files" if spec.input_mode == "files" else "the task reads numbered lines"
    if launch.split is None:
        return "which record the task was at when it ended is known of mappers that read the input only"
    step, kind = launch.links[0]
    if runs_as_command(spec, getattr(spec.steps[step], kind)):
        return "the substep runs as a command, which does not say at which record it failed"
    if failure.fatal:
        return "it is the input that cannot be read"
    if not failure.crashed:
        return "the job's code was not at a record when it failed"
    noted = read_marker(directory)
    return _slice_of_noted(launch.split, noted, directory, settings) if noted is not None else NOT_NOTED


def _slice_of_noted(split: Split, noted: Noted, directory: str, settings: Settings) -> str:
    """Write the slice of an attempt that could not do so itself, which ends with the record that it noted.
    Of compressed input, which would have to be read from its beginning, it is that record alone."""
    piece = next((each for each in split.pieces if each.file.path == noted.path), None)
    if piece is not None and not piece.file.codec and piece.pushed is None:
        start = max(piece.start, noted.offset - SLICE_BYTES)
        piece = replace(piece, start=start, length=noted.offset + 1 - start)
        blocks: Iterator[bytes] = (block for _, block in _read(piece, settings))
    elif noted.whole:
        blocks = iter([noted.record + b"\n"])
    else:
        return "the record is long and its input is compressed"
    with open(os.path.join(directory, SLICE), "wb") as file:
        file.writelines(blocks)
    return ""


def _read(piece: Piece, settings: Settings) -> Iterator[tuple[int, bytes]]:
    return read_blocks(piece, block_bytes=settings.block_bytes, max_line_bytes=settings.max_line_bytes)


def _keep_bundle(spec: JobSpec, launch: Launch, directory: str, failure: Failure, settings: Settings) -> str:
    """Make the bundle of a failed attempt that has a slice in `directory`; its path."""
    source = os.path.join(directory, SLICE)
    step, kind = launch.links[0]
    piece = launch.split.pieces[0] if launch.split is not None and launch.split.pieces else None
    environment = task_env(spec, step, kind, launch.number, launch.attempt, ".", piece)
    recipe = Recipe(
        zmqmr=__version__,
        job=spec.job,
        task=launch.task,
        attempt=launch.attempt,
        step=step,
        kind=kind,
        script=spec.script,
        argv=[f"--step-num={step}", f"--{kind}", *spec.task_args],
        environment=environment,
        bundle_sha256=spec.bundle_sha256,
        reason=failure.reason,
        sh=list(spec.sh),
        setup_script=spec.setup_script,
        python_path=list(spec.python_path),
    )
    target_directory = settings.repro_directory
    os.makedirs(target_directory, mode=0o700, exist_ok=True)
    path = os.path.join(target_directory, f"{spec.job}-{launch.task}.tar")
    with tarfile.open(f"{path}.part", "w") as tar:
        data = msgspec.json.encode(recipe)
        info = tarfile.TarInfo("recipe.json")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
        tar.add(source, "input")
        tar.add(spec.bundle, "bundle")
    os.replace(f"{path}.part", path)
    _forget_old(target_directory, path)
    return path


def _forget_old(directory: str, newest: str) -> None:
    """Remove the oldest bundles beyond the limits."""
    entries = sorted(os.scandir(directory), key=lambda entry: entry.stat().st_mtime, reverse=True)
    size = 0
    for number, entry in enumerate(entries):
        size += entry.stat().st_size
        if entry.path != newest and (number >= KEEP_FILES or size > KEEP_BYTES):
            os.unlink(entry.path)
