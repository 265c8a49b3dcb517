"""Which repro bundle a user means."""

import os

from zmqmr.data import places
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
    found = [
        (entry.stat().st_mtime_ns, entry.path)
        for entry in places.bundles(settings.repro_directory, job)
        if entry.name.endswith(".tar")
    ]
    if not found:
        raise UsageError(f"{job} has left no repro bundle here; `zmqmr logs {job}` says what failed")
    return max(found)[1]
