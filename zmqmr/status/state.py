"""What the status page shows: the newest that was said about each job."""

import time
from collections import OrderedDict
from typing import Any

import msgspec

from zmqmr import __version__
from zmqmr.messages import AttemptReport, JobEnded, JobUpdate

_JOBS = 100  # kept, newest first
_FAILURES = 20  # of a job kept


class State:
    """Written by the coordinator's loop, read by the page's thread: `snapshot` is replaced, never changed."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._started = time.time()
        self._snapshot: dict[str, Any] = self._make()

    def snapshot(self) -> dict[str, Any]:
        return self._snapshot

    def note(self, message: JobUpdate | JobEnded | AttemptReport) -> None:
        """Take over what a message says about its job."""
        job = dict(self._jobs.pop(message.job, {"job": message.job, "state": "running", "failures": []}))
        if isinstance(message, AttemptReport):
            job["failures"] = [*job["failures"], msgspec.to_builtins(message)][-_FAILURES:]
        else:
            job |= {key: value for key, value in msgspec.to_builtins(message).items() if key != "type"}
        self._jobs[message.job] = job
        while len(self._jobs) > _JOBS:
            self._jobs.popitem(last=False)
        self._snapshot = self._make()

    def _make(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "started": self._started,
            "updated": time.time(),
            "jobs": list(reversed(self._jobs.values())),
        }
