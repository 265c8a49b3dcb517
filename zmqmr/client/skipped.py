"""The records that a job left out (--skip-bad-records): where they are kept, and how many."""

import os
import shutil
from contextlib import suppress

from zmqmr.client.endings import log
from zmqmr.data.outputs import SKIPPED
from zmqmr.settings import Settings
from zmqmr.words import counted


def tell(output: str, lasts: bool, job: str, settings: Settings) -> None:
    """Say how many records a job that succeeded left out, and where they are: beside its parts in the
    directory `output` if that `lasts`, else they are copied beside the repro bundles, as one file."""
    directory = os.path.join(output, f"_{SKIPPED}")
    with suppress(FileNotFoundError):
        paths = [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
        count = sum(_lines(path) for path in paths)
        kept = directory
        if not lasts:
            kept = os.path.join(settings.repro_directory, f"{job}.{SKIPPED}")
            try:
                _join(paths, kept)
            except OSError as error:
                log.warning("%s left out, not kept: %s; use --output-dir", counted(count, "record"), error)
                return
        log.warning("%s left out, kept in %s", counted(count, "record"), kept)


def _lines(path: str) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def _join(paths: list[str], target: str) -> None:
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as joined:
        for path in paths:
            with open(path, "rb") as file:
                shutil.copyfileobj(file, joined)
