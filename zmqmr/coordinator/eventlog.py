"""What an operator finds in the log of a coordinator's service: who comes and goes, what begins and ends."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from zmqmr.core.events import Event, WorkerDrained, WorkerJoined, WorkerKept, WorkerLost
from zmqmr.core.scheduler import Scheduler

log = logging.getLogger("zmqmr.coordinator")
_REASON_CHARACTERS = 300


@contextmanager
def logged(event: Event, scheduler: Scheduler) -> Iterator[None]:
    """Inside, the scheduler handles the event; then it is said what has become of workers and jobs."""
    jobs = tuple(scheduler.jobs)
    theirs = isinstance(event, WorkerLost | WorkerDrained | WorkerKept) and event.worker in scheduler.workers
    yield
    if isinstance(event, WorkerJoined):
        log.info("worker %s joins with %d slots", event.worker, event.slots)
    elif theirs:
        _log_worker(event)
    for job in scheduler.jobs:
        if job not in jobs:
            log.info("job %s begins", job)
    for job in jobs:
        if job not in scheduler.jobs and (ended := scheduler.ended.get(job)) is not None:
            what = "was killed" if ended.state == "killed" else ended.state
            log.info("job %s %s%s", job, what, _because(ended.reason))


def _log_worker(event: Event) -> None:
    match event:
        case WorkerLost(name):
            log.info("worker %s is gone", name)
        case WorkerDrained(name):
            log.info("worker %s is to leave", name)
        case WorkerKept(name):
            log.info("worker %s is to stay", name)


def _because(reason: str) -> str:
    """The first line of a reason, which may have what a task said: nothing in it steers a terminal."""
    line = "".join(each if each.isprintable() else "?" for each in reason.partition("\n")[0])
    return f": {line[:_REASON_CHARACTERS]}" if line else ""
