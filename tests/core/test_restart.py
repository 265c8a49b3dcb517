"""After a restart of the coordinator: the journal's events, then what the workers say they hold."""

from typing import Any

from core.driver import CLIENT, Driver
from core.strategies import MAP_REDUCE, make_spec

from zmqmr.core.events import ClientAttached, CoordinatorRestarted, JobSubmitted
from zmqmr.core.scheduler import Scheduler
from zmqmr.core.state import TaskState
from zmqmr.messages import (
    AttemptDone,
    AttemptId,
    Commit,
    EndJob,
    Inventory,
    JobEnded,
    JobSpec,
    JobUnknown,
    JobUpdate,
    Kill,
    Launch,
    OpenJob,
)

MAP = "map-0-00000"


def restarted(spec: JobSpec, slots: int = 1) -> Driver:
    """A job that runs on one worker, w0, of a coordinator that has just started again."""
    drive = Driver()
    drive.join("w0", slots)
    drive.handle(JobSubmitted(CLIENT, spec))
    restart(drive)
    return drive


def restart(drive: Driver) -> None:
    """Replace the scheduler by one that has replayed the same events."""
    replayed = Scheduler(drive.scheduler.worker_timeout_seconds, drive.scheduler.worker_wait_seconds)
    for event, now, commands in drive.log:
        assert replayed.handle(event, now) == commands, "a replay decides differently"
    drive.scheduler = replayed
    drive._commits.clear()  # what was sent may be sent again
    drive.handle(CoordinatorRestarted())


def inventory(drive: Driver, **holds: Any) -> None:
    """The worker answers what it holds."""
    restarts = drive.scheduler.restarts
    values: dict[str, Any] = {"jobs": ("job",), "running": (), "done": (), "committed": ()}
    values |= {"restarts": restarts} | holds
    drive.report("w0", Inventory(drive.epoch("w0"), **values))


def test_an_attempt_launched_after_the_first_answer_is_not_missed_in_the_second() -> None:
    drive = restarted(make_spec())
    inventory(drive)
    (launch,) = drive.told(Launch)
    assert launch.attempt == 2
    inventory(drive)
    assert drive.commands == []
    assert [attempt.number for attempt in drive.task(MAP).attempts] == [2]


def test_what_a_worker_answered_to_the_coordinator_before_this_one_does_not_count() -> None:
    drive = restarted(make_spec())
    inventory(drive)
    drive.told(Launch)
    restart(drive)
    inventory(drive, restarts=1)
    assert drive.commands == [] and drive.scheduler.workers["w0"].resuming
    inventory(drive, running=(AttemptId("job", MAP, 2),))
    assert not drive.told(Launch) and not drive.told(Kill)


def test_a_running_attempt_that_the_worker_holds_goes_on() -> None:
    drive = restarted(make_spec())
    inventory(drive, running=(AttemptId("job", MAP, 1),))

    assert not drive.told(Launch) and not drive.told(Kill)
    drive.finish(drive.newest(MAP))
    assert drive.ended["job"].state == "succeeded"


def test_an_attempt_whose_launch_was_lost_is_launched_again_and_costs_no_failure() -> None:
    drive = restarted(make_spec())
    inventory(drive)

    assert [launch.attempt for launch in drive.told(Launch)] == [2]
    assert drive.task(MAP).failures == 0
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_a_report_that_was_lost_is_taken_from_the_inventory() -> None:
    drive = restarted(make_spec(MAP_REDUCE))
    done: AttemptDone = drive.done_message(drive.newest(MAP))
    inventory(drive, done=(done,))

    assert [commit.task for commit in drive.told(Commit)] == [MAP]
    assert drive.task(MAP).state is TaskState.COMMITTING


def test_a_commit_whose_confirmation_was_lost_is_not_done_twice() -> None:
    drive = Driver()
    drive.join("w0")
    drive.handle(JobSubmitted(CLIENT, make_spec(MAP_REDUCE)))
    drive.done(drive.newest(MAP))
    restart(drive)
    inventory(drive, committed=(AttemptId("job", MAP, 1),))

    assert not drive.told(Commit)
    assert drive.task(MAP).state is TaskState.DONE


def test_a_commit_that_was_lost_is_sent_again() -> None:
    drive = Driver()
    drive.join("w0")
    drive.handle(JobSubmitted(CLIENT, make_spec(MAP_REDUCE)))
    entry = drive.newest(MAP)
    drive.done(entry)
    restart(drive)
    inventory(drive, done=(drive.done_message(entry),))

    assert [(commit.task, commit.attempt) for commit in drive.told(Commit)] == [(MAP, 1)]


def test_a_worker_gets_nothing_to_do_before_it_has_said_what_it_holds() -> None:
    drive = restarted(make_spec(splits=3), slots=3)
    drive.join("w1", 1)  # a new one may work at once
    inventory(drive, running=tuple(AttemptId("job", f"map-0-0000{number}", 1) for number in range(3)))
    drive.drain()
    assert drive.ended["job"].state == "succeeded"

    waiting = restarted(make_spec(splits=3), slots=1)
    waiting.tick()
    assert not waiting.told(Launch)


def test_what_the_journal_does_not_know_is_ended_on_the_worker() -> None:
    drive = restarted(make_spec())
    inventory(drive, jobs=("other",), running=(AttemptId("other", MAP, 1),))

    assert [end.job for end in drive.told(EndJob)] == ["other"]
    assert [(kill.job, kill.task) for kill in drive.told(Kill)] == [("other", MAP)]
    assert [opened.spec.job for opened in drive.told(OpenJob)] == ["job"]


def test_a_client_that_asks_again_hears_where_its_job_stands() -> None:
    drive = restarted(make_spec())
    drive.handle(ClientAttached(b"again", "job"))
    assert [type(command.message) for command in drive.commands] == [JobUpdate]

    inventory(drive, running=(AttemptId("job", MAP, 1),))
    drive.finish(drive.newest(MAP))
    drive.handle(ClientAttached(b"later", "job"))
    assert [(each.client, each.message.state) for each in drive.commands] == [(b"later", "succeeded")]
    assert drive.told(JobEnded)

    drive.handle(ClientAttached(b"lost", "no-such-job"))
    assert drive.told(JobUnknown)


def test_a_worker_that_did_more_than_the_journal_knows_begins_anew_and_nothing_counts_twice() -> None:
    drive = restarted(make_spec(MAP_REDUCE))
    inventory(drive, committed=(AttemptId("job", MAP, 1),))  # the journal lost that it was done
    assert "w0" not in drive.scheduler.workers
    drive.drain()
    assert drive.ended["job"].state == "succeeded"

    ahead = restarted(make_spec(MAP_REDUCE))
    inventory(ahead, running=(AttemptId("job", MAP, 2),))  # and this one that it was launched
    assert "w0" not in ahead.scheduler.workers
