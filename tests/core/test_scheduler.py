"""The scheduler's promises: by example, and over random lives of workers, jobs and attempts."""

from typing import Any

import pytest
from core.driver import CLIENT, WORKER_TIMEOUT, WORKER_WAIT, Driver, snapshot
from core.strategies import COMMAND, MAP_ONLY, MAP_REDUCE, SCRIPT, make_spec, make_step, specs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from zmqmr.core.scheduler import COMMIT_SECONDS, JobCancelled, JobSubmitted, Tick, WorkerLost
from zmqmr.core.state import TaskState
from zmqmr.messages import (
    AttemptDone,
    AttemptReport,
    Commit,
    Committed,
    Discard,
    EndJob,
    EndStage,
    JobSpec,
    JobUpdate,
    Kill,
    Launch,
    OpenJob,
)

MAP = "map-0-00000"
REDUCE = "reduce-1-00000"


def driver(spec: JobSpec, **slots: int) -> Driver:
    """A scheduler with workers, by name and slots, and a job."""
    drive = Driver()
    for name, count in slots.items():
        drive.join(name, count)
    drive.handle(JobSubmitted(CLIENT, spec))
    return drive


# --- failures ----------------------------------------------------------------------------------


def test_a_failed_task_is_run_again_and_the_user_hears_of_it() -> None:
    drive = driver(make_spec(), w0=1)
    drive.fail(drive.newest(MAP), "first")
    (report,) = drive.told(AttemptReport)
    assert (report.attempt, report.attempts, report.final) == (1, 4, False)
    assert report.failure.reason == "first"
    assert report.host == "host-w0"
    (launch,) = drive.told(Launch)
    assert launch.attempt == 2
    drive.finish(drive.newest(MAP))
    assert drive.ended["job"].state == "succeeded"


def test_four_failures_of_a_task_fail_the_job() -> None:
    drive = driver(make_spec(), w0=1)
    for attempt in range(1, 5):
        assert "job" not in drive.ended
        drive.fail(drive.newest(MAP), f"reason {attempt}")
    (report,) = drive.told(AttemptReport)
    assert report.final
    assert drive.ended["job"].state == "failed"
    assert drive.ended["job"].reason == f"{MAP} failed 4 times: reason 4"
    assert drive.told(EndJob, "w0")
    assert drive.scheduler.workers["w0"].free == 1


def test_a_failure_that_would_repeat_fails_the_job_at_once() -> None:
    drive = driver(make_spec(), w0=1)
    drive.fail(drive.newest(MAP), "not gzip", fatal=True)
    assert drive.ended["job"].reason == f"{MAP} failed once: not gzip"


def test_maps_and_reduces_have_attempts_of_their_own() -> None:
    spec = make_spec(make_step(reducer=SCRIPT, map_attempts=3, reduce_attempts=2))
    drive = driver(spec, w0=1)
    drive.fail(drive.newest(MAP))
    drive.fail(drive.newest(MAP))
    drive.finish(drive.newest(MAP))
    drive.fail(drive.newest(REDUCE))
    drive.fail(drive.newest(REDUCE), "again")
    assert drive.ended["job"].reason == f"{REDUCE} failed 2 times: again"


def test_a_failed_task_prefers_another_worker() -> None:
    drive = driver(make_spec(splits=1), w0=2, w1=1)
    assert drive.newest(MAP)[0] == "w0"
    drive.fail(drive.newest(MAP))
    assert drive.newest(MAP)[0] == "w1"


def test_a_job_that_cannot_be_opened_fails_with_the_reason() -> None:
    drive = driver(make_spec(splits=0), w0=1)
    assert drive.ended["job"].state == "succeeded"
    drive = driver(make_spec(), w0=1)
    drive.open_failed("w0")
    assert drive.ended["job"].reason == "no such module"


def test_too_many_different_counters_fail_the_job() -> None:
    drive = Driver(max_counters=10)
    drive.join("w0")
    drive.handle(JobSubmitted(CLIENT, make_spec()))
    worker, epoch, launch = drive.newest(MAP)
    many = {"0": {"g": {str(number): 1 for number in range(11)}}}
    drive.report(worker, AttemptDone("job", MAP, launch.attempt, epoch, many))
    assert drive.ended["job"].state == "failed"
    assert "ZMQMR_MAX_COUNTERS" in drive.ended["job"].reason
    assert drive.scheduler.workers["w0"].free == 1


def test_a_counter_that_every_task_counts_is_one_counter() -> None:
    drive = Driver(max_counters=1)
    drive.join("w0")
    drive.handle(JobSubmitted(CLIENT, make_spec(splits=3)))
    for number in range(3):
        worker, epoch, launch = drive.newest(f"map-0-{number:05d}")
        counters = {"0": {"all": {"attempts": 1}}}
        commands = drive.scheduler.handle
        assert commands is not None
        drive.report(worker, AttemptDone("job", launch.task, 1, epoch, counters))
        assert drive.task(launch.task).state is TaskState.COMMITTING
        drive.scheduler.handle(_committed(drive, worker, launch), drive.now)
        drive.launches += [
            (command.worker, epoch, command.message)
            for command in drive.scheduler._commands
            if isinstance(command.message, Launch)
        ]
    assert not drive.scheduler.jobs
