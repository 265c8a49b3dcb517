"""Which repro bundle a user means."""

import os

from zmqmr.errors import UsageError
from zmqmr.settings import Settings


def find_bundle(name: str) -> str:
    """The path of a repro bundle: `name` itself, or the newest one of the job with that id, or the beginning
    of it. UsageError when there is none."""
    if "/" in name or os.path.exists(name):
        return name
    from zmqmr.client.records import Records

    settings = Settings.from_environ()
    job = Records.of(settings).find(name).job
    found = []
    if os.path.isdir(settings.repro_directory):
        for entry in os.scandir(settings.repro_directory):
            if entry.name.startswith(f"{job}-") and entry.name.endswith(".tar"):
                found.append((entry.stat().st_mtime_ns, entry.path))
    if not found:
        raise UsageError(f"{job} has left no repro bundle here; `zmqmr logs {job}` says what failed")
    return max(found)[1]
