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

from zmqmr import __version__
from zmqmr.data.inputs import read_blocks
from zmqmr.messages import Failure, JobSpec, Launch
from zmqmr.settings import MIB, Settings
from zmqmr.worker.sinks import lines_of, unmark_block
from zmqmr.worker.taskenv import task_env

if TYPE_CHECKING:
    from zmqmr.worker.attempt import Attempt

SLICE = "slice"  # in an attempt's directory
SLICE_BYTES = 16 * MIB  # of input kept: its end, where the failing record is
BUNDLE_BYTES = 64 * MIB  # of a job's files: a job with more has no repro bundle
KEEP_BYTES = 1024 * MIB  # of all bundles
KEEP_FILES = 100


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
    settings = attempt.settings
    assert attempt.launch.split is not None
    for piece in attempt.launch.split.pieces:
        for _, block in read_blocks(
            piece, block_bytes=settings.block_bytes, max_line_bytes=settings.max_line_bytes
        ):
            yield block


def _reduce_input(attempt: "Attempt", marked: bool) -> Iterator[bytes]:
    blocks = attempt.merged_runs()
    return map(unmark_block, blocks) if marked else blocks


def keep_bundle(spec: JobSpec, launch: Launch, directory: str, failure: Failure, settings: Settings) -> str:
    """Make the bundle of a failed attempt that left a slice in `directory`; its path, or "" without one."""
    source = os.path.join(directory, SLICE)
    if not launch.links or not os.path.exists(source) or os.path.getsize(spec.bundle) > BUNDLE_BYTES:
        return ""
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
