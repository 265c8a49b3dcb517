"""The scheduler's promises: by example, and over random lives of workers, jobs and attempts."""

from collections import Counter
from typing import Any

import msgspec
import pytest
from core.driver import CLIENT, WORKER_TIMEOUT, WORKER_WAIT, Driver, snapshot
from core.strategies import COMMAND, MAP_ONLY, MAP_REDUCE, SCRIPT, make_spec, make_step, specs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from zmqmr.core.events import (
    AttemptSlow,
    JobCancelled,
    JobSubmitted,
    Reported,
    WorkerDrained,
    WorkerKept,
    WorkerLost,
)
from zmqmr.core.scheduler import COMMIT_SECONDS
from zmqmr.core.state import TaskState
from zmqmr.messages import (
    AttemptDone,
    AttemptFailed,
    AttemptReport,
    Commit,
    Committed,
    Discard,
    EndJob,
    EndStage,
    Failure,
    FrameCount,
    JobSpec,
    JobUpdate,
    Kill,
    Launch,
    OpenJob,
    OwnerLost,
)

MAP = "map-0-00000"
REDUCE = "reduce-1-00000"
MAP_REDUCE_JOB = make_spec(MAP_REDUCE)


def driver(spec: JobSpec, **slots: int) -> Driver:
    """A scheduler with workers, by name and slots, and a job."""
    drive = Driver()
    for name, count in slots.items():
        drive.join(name, count)
    drive.handle(JobSubmitted(CLIENT, spec))
    return drive


@pytest.mark.parametrize(
    ("timeout", "slots", "seconds"), [(600.0, 8, 0.0024), (0.0, 40_000, 12.0), (6.0, 40_000, 1.5)]
)
def test_attempts_of_a_large_cluster_report_less_often_but_in_time(
    timeout: float, slots: int, seconds: float
) -> None:
    drive = driver(make_spec(make_step(timeout_seconds=timeout)), w0=slots, w1=slots, w2=slots)
    assert all(launch.progress_seconds == pytest.approx(seconds) for _, _, launch in drive.launches)
    assert drive.launches


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


def test_counters_of_a_step_that_the_job_does_not_have_fail_the_attempt_T4() -> None:
    drive = driver(MAP_REDUCE_JOB, w0=1)
    entry = drive.newest(MAP)
    odd = msgspec.structs.replace(drive.done_message(entry), counters={"9": {"group": {"name": 1}}})

    drive.handle(Reported(entry[0], odd))

    again = drive.newest(MAP)
    assert again[2].attempt == 2
    drive.done(again)
    assert drive.told(Commit)


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


def test_f6_attempts_need_not_wait_for_an_owner_that_is_lost() -> None:
    drive = driver(make_spec(MAP_REDUCE, splits=3), w0=1, w1=1, w2=1)
    drive.finish(drive.newest("map-0-00002"))
    drive.handle(WorkerLost("w0"))
    assert [lost.shuffle for lost in drive.told(OwnerLost, "w1")] == ["ipc://w0/1"]
    assert not drive.told(OwnerLost, "w2"), "it runs nothing"


def test_f18_a_worker_without_room_for_a_job_is_done_without_and_asked_again() -> None:
    drive = Driver()
    for name in ("w0", "w1"):
        drive.join(name)
    drive.full = {"w0"}
    drive.handle(JobSubmitted(CLIENT, make_spec(make_step(reducer=SCRIPT, partitions=2), splits=2)))
    job = drive.scheduler.jobs["job"]
    assert {entry[0] for entry in drive.launches} == {"w1"}
    assert job.stages[0].owners == ["w1", "w1"]
    drive.full.clear()
    drive.now += 0.4
    drive.tick()
    assert not drive.told(OpenJob)
    drive.now += 0.1
    drive.tick()
    assert "w0" in job.opened and drive.newest("map-0-00001")[0] == "w0"
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_f18_partitions_of_a_worker_that_turns_out_to_have_no_room_go_to_others() -> None:
    """It answers late: records of the others are on their way to it already, and one commit waits for it."""
    drive = Driver()
    for name in ("w0", "w1"):
        drive.join(name)
    drive.silent = {"w0"}
    drive.handle(JobSubmitted(CLIENT, make_spec(make_step(reducer=SCRIPT, partitions=2), splits=2)))
    job = drive.scheduler.jobs["job"]
    assert job.stages[0].owners == ["w0", "w1"]
    drive.done(drive.newest(MAP))
    assert drive.task(MAP).awaited == {"w0", "w1"}
    drive.open_failed("w0", fatal=False)
    drive.silent.clear()
    assert drive.task(MAP).awaited == {"w1"} and job.stages[0].owners == ["w1", "w1"]
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_f18_a_job_that_no_worker_has_room_for_fails_after_a_while_and_waits_with_a_reason() -> None:
    drive = Driver()
    for name in ("w0", "w1"):
        drive.join(name)
    drive.full = {"w0", "w1"}
    drive.handle(JobSubmitted(CLIENT, make_spec()))
    waits = []
    for delay in (0.5, 1.0, 2.0):
        assert drive.scheduler._progress_of(drive.scheduler.jobs["job"]).waiting
        drive.now += delay - 0.1
        drive.beat()
        drive.tick()
        waits.append(bool(drive.told(OpenJob)))
        drive.now += 0.1
        drive.tick()
    assert waits == [False] * 3
    assert (drive.ended["job"].state, drive.ended["job"].reason) == ("failed", "no room")


def test_f18_an_attempt_that_found_a_full_drive_is_run_again_later_and_any_other_at_once() -> None:
    drive = driver(make_spec(make_step(map_attempts=9)), w0=1)
    drive.fail(drive.newest(MAP))
    assert len(drive.told(Launch)) == 1
    for delay in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        drive.fail(drive.newest(MAP), "no space left", no_room=True)
        drive.now += delay - 0.1
        drive.beat()
        drive.tick()
        assert not drive.told(Launch)
        drive.now += 0.2
        drive.tick()
        assert len(drive.told(Launch)) == 1
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_f18_records_that_an_owner_has_no_room_for_are_delivered_again_later() -> None:
    drive = driver(make_spec(MAP_REDUCE), w0=1)
    launch = drive.newest(MAP)[2]
    drive.done(drive.newest(MAP))
    drive.commit_failed("w0", launch, no_room=True)
    assert not drive.told(Launch)
    drive.now += 0.6
    drive.tick()
    assert len(drive.told(Launch)) == 1
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_f18_partitions_whose_owner_has_no_room_go_to_another_worker() -> None:
    drive = driver(make_spec(make_step(reducer=SCRIPT, partitions=4), splits=3), w0=1, w1=1)
    stage = drive.scheduler.jobs["job"].stages[0]
    assert stage.owners == ["w0", "w1", "w0", "w1"]
    drive.finish(drive.newest("map-0-00000"))
    other = next(f"map-0-{number:05d}" for number in (1, 2) if drive.newest(f"map-0-{number:05d}")[0] == "w0")
    drive.done(drive.newest(other))
    drive.committed("w0", drive.newest(other)[2])
    drive.commit_failed("w1", drive.newest(other)[2], no_room=True)
    assert stage.owners == ["w0"] * 4
    assert [end.stage for end in drive.told(EndStage, "w1")] == [0], "what it holds of them goes"
    assert drive.task("map-0-00000").missing == {1, 3}
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_f18_a_partition_that_cannot_be_sorted_for_want_of_room_goes_to_another_worker() -> None:
    drive = driver(make_spec(make_step(reducer=SCRIPT, partitions=2)), w0=1, w1=1)
    drive.finish(drive.newest(MAP))
    stage = drive.scheduler.jobs["job"].stages[0]
    drive.fail(drive.newest(REDUCE), "no space left", no_room=True)
    assert stage.owners == ["w1", "w1"] and drive.task(MAP).state is TaskState.RUNNING
    assert drive.newest(MAP)[2].replay
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_f18_a_partition_that_is_read_stays_where_it_is_when_its_owner_has_no_room_for_another() -> None:
    drive = driver(make_spec(make_step(reducer=SCRIPT, partitions=4)), w0=2, w1=2)
    drive.finish(drive.newest(MAP))
    drive.finish(drive.newest(REDUCE))
    stage = drive.scheduler.jobs["job"].stages[0]
    assert stage.owners == ["w0", "w0", "w1", "w1"]
    drive.fail(drive.newest("reduce-1-00003"), "its run is damaged", damaged=True)
    drive.done(drive.newest(MAP))
    drive.commit_failed("w1", drive.newest(MAP)[2], no_room=True)
    assert stage.owners == ["w0", "w0", "w1", "w0"] and not drive.told(EndStage)
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_f18_partitions_stay_where_there_is_no_room_when_there_is_nobody_else() -> None:
    drive = driver(MAP_REDUCE_JOB, w0=1)
    drive.finish(drive.newest(MAP))
    drive.fail(drive.newest(REDUCE), "no space left", no_room=True)
    assert drive.scheduler.jobs["job"].stages[0].owners == ["w0"]
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_input_that_is_damaged_although_no_task_made_it_is_read_again() -> None:
    drive = driver(make_spec(), w0=1)
    drive.fail(drive.newest(MAP), "it arrived damaged", damaged=True)
    assert len(drive.told(Launch)) == 1
    drive.drain()


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
        drive.report(worker, AttemptDone("job", launch.task, 1, epoch, counters))
        drive.confirm_all(launch)
    assert drive.ended["job"].counters == ({"all": {"attempts": 3}},)


# --- reports that are not to be believed -------------------------------------------------------


def test_a_late_success_of_a_superseded_attempt_is_ignored() -> None:
    drive = driver(make_spec(), w0=1)
    old = drive.newest(MAP)
    drive.fail(old)
    before = snapshot(drive.scheduler)
    assert drive.done(old) == []
    assert snapshot(drive.scheduler) == before


def test_reports_of_another_epoch_or_worker_are_ignored() -> None:
    drive = driver(make_spec(), w0=1)
    worker, epoch, launch = drive.newest(MAP)
    drive.join("w1")
    before = snapshot(drive.scheduler)
    assert drive.done((worker, epoch + 7, launch)) == []
    assert drive.done(("w1", drive.epoch("w1"), launch)) == []
    assert drive.done(("stranger", epoch, launch)) == []
    assert snapshot(drive.scheduler) == before


def test_only_those_who_are_asked_can_commit_or_fail_to() -> None:
    drive = driver(make_spec(), w0=1, w1=1)
    entry = drive.newest(MAP)
    drive.done(entry)
    other = "w1" if entry[0] == "w0" else "w0"
    before = snapshot(drive.scheduler)
    assert drive.committed(other, entry[2]) == []
    assert drive.commit_failed(other, entry[2]) == []
    assert snapshot(drive.scheduler) == before


def test_progress_of_an_old_attempt_does_not_keep_the_new_one_alive() -> None:
    drive = driver(make_spec(make_step(timeout_seconds=10)), w0=1)
    old = drive.newest(MAP)
    drive.fail(old)
    for _ in range(11):
        drive.now += 1
        drive.beat()
        drive.progress(old)
    drive.tick()
    assert [kill.attempt for kill in drive.told(Kill)] == [2]


# --- commits -----------------------------------------------------------------------------------


def test_everyone_who_got_frames_takes_part_in_the_commit() -> None:
    drive = driver(make_spec(make_step(reducer=SCRIPT, partitions=4)), w0=2, w1=2)
    entry = drive.newest(MAP)
    drive.done(entry)
    for worker in ("w0", "w1"):
        (commit,) = drive.told(Commit, worker)
        mine = [number for number, owner in enumerate(entry[2].owners) if f"/{worker}/" in owner]
        assert [count.partition for count in commit.frames] == mine and len(mine) == 2
    drive.committed("w0", entry[2])
    assert drive.task(MAP).state is TaskState.COMMITTING
    drive.committed("w0", entry[2])
    assert drive.task(MAP).state is TaskState.COMMITTING
    drive.committed("w1", entry[2])
    assert drive.task(MAP).state is TaskState.DONE


def test_a_failed_commit_of_a_part_file_runs_the_task_again() -> None:
    drive = driver(make_spec(), w0=1)
    entry = drive.newest(MAP)
    drive.done(entry)
    drive.commit_failed("w0", entry[2])
    assert [discard.attempt for discard in drive.told(Discard, "w0")] == [1]
    assert [launch.attempt for launch in drive.told(Launch)] == [2]


def test_an_owner_that_cannot_commit_gets_its_records_again_from_the_spool() -> None:
    drive = driver(make_spec(make_step(reducer=SCRIPT, partitions=2), splits=2), w0=1, w1=1)
    entry = drive.newest(MAP)
    runner, other = entry[0], "w1" if entry[0] == "w0" else "w0"
    drive.done(entry)
    drive.committed(runner, entry[2])
    drive.commit_failed(other, entry[2])
    assert [discard.attempt for discard in drive.told(Discard)] == [1]
    (launch,) = drive.told(Launch, runner)
    assert (launch.task, launch.attempt, launch.replay) == (MAP, 2, True)
    assert [f"/{other}/" in owner for owner in launch.owners if owner] == [True]
    drive.drain()
    assert drive.ended["job"].counters[0]["all"] == {"attempts": 4}


def test_a_late_answer_to_the_commit_of_an_old_attempt_is_ignored() -> None:
    drive = driver(MAP_REDUCE_JOB, w0=1)
    old = drive.newest(MAP)
    drive.done(old)
    drive.commit_failed("w0", old[2])
    drive.done(drive.newest(MAP))
    before = snapshot(drive.scheduler)
    assert drive.committed("w0", old[2]) == []
    assert drive.commit_failed("w0", old[2]) == []
    assert snapshot(drive.scheduler) == before


def test_commits_that_fail_four_times_fail_the_job() -> None:
    drive = driver(MAP_REDUCE_JOB, w0=1)
    for _ in range(4):
        entry = drive.newest(MAP)
        drive.done(entry)
        drive.commit_failed("w0", entry[2])
    assert drive.ended["job"].reason == f"{MAP} failed 4 times: the disk is broken"


def test_frames_that_never_arrive_are_given_up() -> None:
    drive = driver(MAP_REDUCE_JOB, w0=1)
    drive.done(drive.newest(MAP))
    drive.now += COMMIT_SECONDS
    drive.beat()
    drive.tick()
    assert not drive.told(AttemptReport)
    drive.now += 1
    drive.tick()
    (report,) = drive.told(AttemptReport)
    assert "did not arrive" in report.failure.reason
    assert [launch.attempt for launch in drive.told(Launch)] == [2]


# --- time --------------------------------------------------------------------------------------


def test_an_attempt_without_progress_is_killed_and_charged_with_the_reason() -> None:
    drive = driver(make_spec(make_step(timeout_seconds=10)), w0=1)
    entry = drive.newest(MAP)
    drive.now = 10.0
    drive.beat()
    drive.tick()
    assert not drive.told(Kill)
    drive.now = 11.0
    drive.tick()
    (kill,) = drive.told(Kill, "w0")
    assert (kill.task, kill.attempt) == (MAP, 1)
    assert drive.scheduler.workers["w0"].free == 0
    drive.fail(entry, "killed by SIGTERM")
    (report,) = drive.told(AttemptReport)
    assert "no progress for 10 seconds" in report.failure.reason
    drive.fail(drive.newest(MAP), "another")
    assert drive.told(AttemptReport)[0].failure.reason == "another"


def test_a_kill_that_has_no_effect_is_repeated() -> None:
    drive = driver(make_spec(make_step(timeout_seconds=10)), w0=1)
    kills = 0
    for _ in range(23):
        drive.now += 1
        drive.beat()
        drive.tick()
        kills += len(drive.told(Kill))
    assert kills == 2


def test_progress_keeps_an_attempt_alive_and_no_timeout_is_for_ever() -> None:
    drive = driver(make_spec(make_step(timeout_seconds=10)), w0=1)
    for _ in range(30):
        drive.now += 1
        drive.progress(drive.newest(MAP))
        drive.tick()
        assert not drive.told(Kill)
    drive = driver(make_spec(make_step(timeout_seconds=0)), w0=1)
    drive.now = 1e6
    drive.beat()
    drive.tick()
    assert not drive.told(Kill)


def test_a_job_without_a_worker_waits_and_then_fails_with_the_reason() -> None:
    drive = driver(make_spec())
    drive.tick()
    drive.now = WORKER_WAIT
    drive.tick()
    assert [update.waiting for update in drive.told(JobUpdate)] == ["no worker is there"]
    assert not drive.ended
    drive.now = WORKER_WAIT + 1
    drive.tick()
    assert drive.ended["job"].reason == "no worker joined within 60 seconds"


def test_the_wait_for_a_worker_begins_anew_after_each_worker() -> None:
    drive = driver(make_spec())
    drive.tick()
    drive.now = WORKER_WAIT
    drive.join("w0")
    drive.handle(WorkerLost("w0"))
    drive.now += 1
    drive.tick()
    assert not drive.ended


def test_a_silent_worker_is_lost() -> None:
    drive = driver(make_spec(), w0=1)
    drive.now = WORKER_TIMEOUT
    drive.tick()
    assert "w0" in drive.scheduler.workers
    drive.now = WORKER_TIMEOUT + 0.1
    drive.tick()
    assert not drive.scheduler.workers
    assert drive.task(MAP).state is TaskState.READY


# --- losses ------------------------------------------------------------------------------------


def test_a_lost_worker_is_no_failure_of_its_task() -> None:
    drive = driver(make_spec(), w0=1)
    drive.join("w0")
    task = drive.task(MAP)
    assert (task.attempt, task.failures, task.losses) == (2, 0, 1)
    assert drive.told(OpenJob, "w0")


def test_a_task_that_three_workers_die_of_fails_the_job() -> None:
    drive = driver(make_spec())
    for number in range(3):
        drive.join(f"w{number}")
        drive.handle(WorkerLost(f"w{number}"))
    assert drive.ended["job"].reason == (f"3 workers were lost while they ran {MAP}, the last on host-w2")


TWO_OWNERS = make_spec(make_step(reducer=SCRIPT, partitions=2), splits=2)


def test_what_a_lost_owner_held_is_delivered_again_from_the_spools() -> None:
    """Only what it held, and only what has no spool is run again."""
    drive = driver(TWO_OWNERS, w0=1, w1=1)
    for number in range(2):
        drive.finish(drive.newest(f"map-0-{number:05d}"))
    ran_on = {task.name: task.worker for task in drive.scheduler.jobs["job"].stages[0].tasks}
    assert set(ran_on.values()) == {"w0", "w1"}
    drive.handle(WorkerLost("w1"))
    assert drive.scheduler.jobs["job"].current == 0
    drive.drain()
    ended = drive.ended["job"]
    assert ended.state == "succeeded"
    assert ended.counters[0]["all"] == {"attempts": 4}
    again = [entry[2] for entry in drive.launches if entry[2].attempt > 1 and entry[2].source is None]
    assert {launch.task: launch.replay for launch in again} == {
        task: worker == "w0" for task, worker in ran_on.items()
    }
    assert all(launch.owners[0] == "" and "/w0/" in launch.owners[1] for launch in again)


def test_a_reduce_task_goes_on_while_another_partition_is_filled_again() -> None:
    drive = driver(TWO_OWNERS, w0=1, w1=1)
    for number in range(2):
        drive.finish(drive.newest(f"map-0-{number:05d}"))
    running = drive.newest(REDUCE)
    assert running[0] == "w0"
    drive.handle(WorkerLost("w1"))
    assert not drive.told(Kill)
    drive.finish(running)
    assert drive.task(REDUCE).state is TaskState.DONE
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_a_worker_that_comes_back_with_its_spools_runs_nothing_again() -> None:
    drive = driver(make_spec(make_step(reducer=SCRIPT, partitions=2), splits=3), w0=1)
    for number in range(3):
        drive.finish(drive.newest(f"map-0-{number:05d}"))
    drive.kept["w0", "job"] = [f"map-0-{number:05d}" for number in range(3)]
    drive.join("w0")
    drive.drain()
    again = [entry[2] for entry in drive.launches if entry[2].task.startswith("map") and entry[2].attempt > 1]
    assert len(again) == 3 and all(launch.replay for launch in again)


def test_a_finished_step_of_an_earlier_run_is_not_shuffled_again() -> None:
    two_steps = make_spec(make_step(reducer=SCRIPT, partitions=2), make_step(reducer=SCRIPT), splits=2)
    drive = Driver()
    drive.join("w0")
    drive.kept["w0", "job"] = ["map-0-00000", "map-0-00001", "reduce-1-00000", "reduce-1-00001"]
    for name in drive.kept["w0", "job"]:
        drive._yielded["job", name] = {"0": {"tasks": {name: 1}}}
    drive.handle(JobSubmitted(CLIENT, two_steps))
    drive.drain()
    assert drive.ended["job"].state == "succeeded"
    launches = [entry[2] for entry in drive.launches]
    assert [launch.task for launch in launches if not launch.replay] == ["reduce-2-00000"]
    assert all(not any(launch.owners) for launch in launches if launch.stage == 0)
    assert [stage.reused for stage in drive.ended["job"].stages] == [2, 2, 0]


def test_a_spool_that_cannot_be_replayed_costs_its_task_only() -> None:
    drive = driver(TWO_OWNERS, w0=1, w1=1)
    for number in range(2):
        drive.finish(drive.newest(f"map-0-{number:05d}"))
    drive.finish(drive.newest(REDUCE))
    drive.handle(WorkerLost("w1"))
    replay = next(entry for entry in drive.launches if entry[2].replay)
    drive.fail(replay, "the spool is damaged")
    assert not drive.told(AttemptReport)
    task = drive.task(replay[2].task)
    assert (task.failures, task.spool) == (0, None)
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_damaged_input_of_a_reduce_task_is_delivered_again() -> None:
    drive = driver(TWO_OWNERS, w0=1, w1=1)
    for number in range(2):
        drive.finish(drive.newest(f"map-0-{number:05d}"))
    worker, epoch, launch = drive.newest(REDUCE)
    failure = Failure("a run is not what was written", damaged=True)
    drive.report(worker, AttemptFailed("job", REDUCE, launch.attempt, epoch, failure))
    again = [launch for launch in drive.told(Launch) if launch.stage == 0]
    assert again and all(launch.replay and launch.owners[0] and not launch.owners[1] for launch in again)
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_f46_a_task_that_yields_other_records_begins_the_job_anew_and_then_fails_it() -> None:
    drive = driver(TWO_OWNERS, w0=1, w1=1)

    def random_done(task: str, salt: int) -> None:
        entry = drive.newest(task)
        message = drive.done_message(entry)
        frames = tuple(FrameCount(count.partition, 1, 10, salt) for count in message.frames)
        drive.report(entry[0], msgspec.structs.replace(message, frames=frames))
        if "job" not in drive.ended:
            drive.confirm_all(entry[2])

    salt = 0
    for _ in range(2):
        for number in range(2):
            salt += 1
            random_done(f"map-0-{number:05d}", salt)
        gone = drive.task(MAP).worker or ""
        drive.handle(WorkerLost(gone))
        drive.join(gone)
        assert drive.newest(MAP)[2].stage == 0
        salt += 1
        entry = drive.newest(MAP)
        assert not entry[2].replay
        frames = tuple(FrameCount(number, 1, 10, salt) for number in range(2))
        drive.report(entry[0], msgspec.structs.replace(drive.done_message(entry), frames=frames))
    assert drive.scheduler.jobs["job"].restarts == 2
    drive.drain()


def test_a_worker_that_owns_no_partition_may_go_while_its_records_are_committed() -> None:
    """They are with their owners: running the task again would be for nothing."""
    drive = driver(make_spec(MAP_REDUCE, splits=2), w0=1, w1=1)
    entry = next(entry for entry in drive.launches if entry[0] == "w1")
    drive.done(entry)
    drive.handle(WorkerLost("w1"))
    assert not drive.told(Discard)
    drive.committed("w0", entry[2])
    assert drive.task(entry[2].task).state is TaskState.DONE
    drive.drain()
    assert drive.ended["job"].counters[0]["all"] == {"attempts": 3}


def test_a_worker_whose_records_are_all_shuffled_away_may_go() -> None:
    drive = driver(make_spec(MAP_REDUCE, splits=2), w0=1, w1=1)
    for number in range(2):
        drive.finish(drive.newest(f"map-0-{number:05d}"))
    drive.handle(WorkerLost("w1"))
    assert drive.scheduler.jobs["job"].current == 1
    assert not drive.told(EndStage)


def test_a_lost_part_file_is_made_again() -> None:
    drive = driver(make_spec(MAP_ONLY, make_step(COMMAND), splits=2), w0=1, w1=1)
    for number in range(2):
        drive.finish(drive.newest(f"map-0-{number:05d}"))
    assert drive.scheduler.jobs["job"].current == 1
    lost = [task for task in drive.scheduler.jobs["job"].stages[0].tasks if task.worker == "w0"]
    drive.handle(WorkerLost("w0"))
    assert drive.scheduler.jobs["job"].current == 0
    drive.drain()
    again = {entry[2].task for entry in drive.launches if entry[2].attempt > 1 and entry[2].stage == 0}
    assert again == {task.name for task in lost}


def test_an_owner_that_cannot_be_reached_four_times_fails_the_job_and_names_both_hosts() -> None:
    drive = driver(make_spec(MAP_REDUCE, splits=1), w0=1, w1=1)
    owner = drive.scheduler.jobs["job"].stages[0].owners[0]
    for _ in range(4):
        worker, epoch, launch = drive.newest(MAP)
        message = msgspec.structs.replace(drive.done_message((worker, epoch, launch)), undelivered=(0,))
        drive.report(worker, message)
        if "job" not in drive.ended:
            drive.confirm_all(launch)
            drive.now += WORKER_TIMEOUT
            drive.beat()
            drive.tick()
    reason = drive.ended["job"].reason
    assert f"to host host-{owner}" in reason and "from host host-w" in reason


# --- races ---------------------------------------------------------------------------------------


def racing() -> Driver:
    """Four tasks of which three took a second, on two workers; the last one is slow."""
    drive = driver(make_spec(MAP_REDUCE, splits=4), w0=2, w1=2)
    drive.now = 1.0
    for number in range(3):
        drive.finish(drive.newest(f"map-0-{number:05d}"))
    for _ in range(7):
        drive.now += 1.0
        drive.beat()
        drive.tick()
    return drive


def test_f14_a_slow_attempt_is_raced_on_another_worker_and_the_first_commit_wins() -> None:
    drive = racing()
    task = drive.task("map-0-00003")
    first, second = task.attempts
    assert first.worker != second.worker
    drive.done(drive.launched(task.name, second.number))
    assert [(kill.task, kill.attempt) for kill in drive.told(Kill, first.worker)] == [
        (task.name, first.number)
    ]
    drive.confirm_all(drive.newest(task.name)[2])
    assert task.state is TaskState.DONE
    drive.done(drive.launched(task.name, first.number))  # it was done before the kill came
    assert drive.told(Discard) and not drive.told(Commit)
    drive.drain()
    assert drive.ended["job"].counters[0]["all"] == {"attempts": 5}


def test_f14_a_slow_attempt_is_not_raced_on_its_own_worker() -> None:
    drive = driver(make_spec(MAP_REDUCE, splits=4), w0=2)
    for number in range(3):
        drive.finish(drive.newest(f"map-0-{number:05d}"))
    task = drive.task("map-0-00003")
    drive.handle(AttemptSlow("job", task.name, task.attempt))
    assert len(task.attempts) == 1 and drive.scheduler.workers["w0"].free == 1


def test_f14_a_race_that_one_attempt_loses_its_worker_in_goes_on() -> None:
    drive = racing()
    task = drive.task("map-0-00003")
    drive.handle(WorkerLost(task.attempts[1].worker))
    assert task.state is TaskState.RUNNING
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


# --- jobs --------------------------------------------------------------------------------------


def test_a_job_without_splits_ends() -> None:
    drive = driver(make_spec(MAP_REDUCE, splits=0))
    assert not drive.ended
    drive.join("w0")
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_two_jobs_share_the_slots_fairly() -> None:
    drive = driver(make_spec(splits=6, job="a"))
    drive.handle(JobSubmitted(CLIENT, make_spec(splits=6, job="b")))
    drive.join("w0", 4)
    for number in range(2):
        drive.finish(drive.newest(f"map-0-{number:05d}", "a"))
    running = Counter(job.spec.job for job in drive.scheduler.jobs.values() for _ in job.attempts())
    assert running == {"a": 2, "b": 2}


def test_a_job_that_comes_later_gets_the_slots_that_become_free() -> None:
    drive = driver(make_spec(splits=6, job="a"), w0=2)
    drive.handle(JobSubmitted(CLIENT, make_spec(splits=6, job="b")))
    drive.done(drive.newest("map-0-00000", "a"))
    assert [launch.job for launch in drive.told(Launch)] == ["b"]


def test_a_job_submitted_twice_is_one_job() -> None:
    drive = driver(make_spec(), w0=1)
    drive.now += 1
    drive.tick()  # the client has been told all there is
    before = snapshot(drive.scheduler)
    drive.handle(JobSubmitted(CLIENT, make_spec()))
    assert [type(command.message) for command in drive.commands] == [JobUpdate]  # how far it is
    assert snapshot(drive.scheduler) == before


def test_a_cancelled_job_ends_everywhere_and_frees_its_slots() -> None:
    drive = driver(make_spec(), w0=1, w1=1)
    drive.handle(JobCancelled("job", "killed on request"))
    assert drive.told(EndJob, "w0") and drive.told(EndJob, "w1")
    assert (drive.ended["job"].state, drive.ended["job"].reason) == ("killed", "killed on request")
    assert [worker.free for worker in drive.scheduler.workers.values()] == [1, 1]


def test_a_reduce_task_runs_where_its_partition_is_and_may_read_all_of_it() -> None:
    drive = driver(make_spec(make_step(reducer=SCRIPT, partitions=2)), w0=1, w1=1)
    drive.finish(drive.newest(MAP))
    reduces = {entry[2].number: entry[0] for entry in drive.launches if entry[2].source == 0}
    assert reduces == {0: "w0", 1: "w1"}
    assert not drive.told(EndStage)
    drive.drain()


# --- any life ----------------------------------------------------------------------------------


KINDS = ("fatal", "damaged", "no_room", "crashed")  # of failures


class Lives(RuleBasedStateMachine):
    """Workers come and go, jobs come, and any attempt that ever was reports anything, at any time.

    The driver checks what must hold after every event.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drive = Driver()
        self.jobs = 0

    @rule(worker=st.sampled_from(["w0", "w1", "w2"]), slots=st.integers(1, 3), keeps=st.booleans())
    def join(self, worker: str, slots: int, keeps: bool) -> None:
        for name, job in self.drive.scheduler.jobs.items():
            spools = [task.name for task in job.by_name.values() if task.spool == worker]
            self.drive.kept[worker, name] = spools if keeps else []
        self.drive.join(worker, slots)

    @rule(worker=st.sampled_from(["w0", "w1", "w2"]))
    def lose(self, worker: str) -> None:
        self.drive.handle(WorkerLost(worker))

    @rule(worker=st.sampled_from(["w0", "w1", "w2"]), stays=st.booleans())
    def drain(self, worker: str, stays: bool) -> None:
        self.drive.handle(WorkerKept(worker) if stays else WorkerDrained(worker))

    @rule(workers=st.sets(st.sampled_from(["w0", "w1", "w2"])))
    def have_no_room_for_another_job(self, workers: set[str]) -> None:
        self.drive.full = workers

    @precondition(lambda self: len(self.drive.scheduler.jobs) < 2)
    @rule(spec=specs())
    def submit(self, spec: JobSpec) -> None:
        self.jobs += 1
        values = {name: getattr(spec, name) for name in spec.__struct_fields__}
        self.drive.handle(JobSubmitted(CLIENT, JobSpec(**{**values, "job": f"job{self.jobs}"})))

    @precondition(lambda self: self.drive.scheduler.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.drive.scheduler.jobs)))
        self.drive.handle(JobCancelled(job, "killed on request"))

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 4.0, 61.0, 700.0]), beat=st.booleans())
    def tick(self, seconds: float, beat: bool) -> None:
        self.drive.now += seconds
        if beat:
            self.drive.beat()
        self.drive.tick()

    @precondition(lambda self: self.drive.launches)
    @rule(data=st.data(), what=st.sampled_from(["done", "fail", *KINDS, "progress"]))
    def any_attempt_reports(self, data: st.DataObject, what: str) -> None:
        entry = data.draw(st.sampled_from(self.drive.launches))
        if data.draw(st.integers(0, 9)) == 0:
            worker = data.draw(st.sampled_from(["w0", "w1", "w2"]))
            entry = (worker, self.drive.epoch(worker), entry[2])
        self._report(entry, what)

    @precondition(lambda self: self.drive.launches)
    @rule(
        what=st.sampled_from(["done", "done", "done", "fail", "no_room", "progress"]), back=st.integers(0, 3)
    )
    def a_recent_attempt_reports(self, what: str, back: int) -> None:
        self._report(self.drive.launches[-1 - min(back, len(self.drive.launches) - 1)], what)

    def _report(self, entry: tuple[str, int, Launch], what: str) -> None:
        drive = self.drive
        current = drive.is_current(entry[0], drive.done_message(entry))
        before = snapshot(drive.scheduler)
        if what == "done":
            commands = drive.done(entry)
        elif what == "progress":
            commands = drive.progress(entry)
        else:
            commands = drive.fail(entry, **({what: True} if what in KINDS else {}))
        self._check_stale(current, before, commands)

    @precondition(lambda self: self.drive.launches)
    @rule(
        data=st.data(),
        worker=st.sampled_from(["w0", "w1", "w2"]),
        old_epoch=st.integers(0, 9).map(lambda number: number == 0),
        fails=st.integers(0, 4).map(lambda number: number == 0),
    )
    def anyone_answers_a_commit(self, data: st.DataObject, worker: str, old_epoch: bool, fails: bool) -> None:
        drive = self.drive
        entries = drive.launches[-6:] if data.draw(st.booleans()) else drive.launches
        launch = data.draw(st.sampled_from(entries))[2]
        epoch = drive.epoch(worker) - (1 if old_epoch else 0)
        message: Any = Committed(launch.job, launch.task, launch.attempt, epoch)
        current = drive.is_current(worker, message)
        before = snapshot(drive.scheduler)
        answer = drive.commit_failed if fails else drive.committed
        self._check_stale(current, before, answer(worker, launch, epoch))

    @precondition(lambda self: self.drive.scheduler.jobs)
    @rule()
    def all_commits_succeed(self) -> None:
        for job in list(self.drive.scheduler.jobs.values()):
            for task in list(job.active.values()):
                if task.state is TaskState.COMMITTING and job.spec.job in self.drive.scheduler.jobs:
                    launch = self.drive.launched(task.name, task.committing, job.spec.job)[2]
                    self.drive.confirm_all(launch)

    def _check_stale(self, current: bool, before: Any, commands: list[Any]) -> None:
        if not current:
            assert commands == [], "an old report was answered"
            assert snapshot(self.drive.scheduler) == before, "an old report changed something"

    def teardown(self) -> None:
        for worker in list(self.drive.scheduler.workers):  # when all leave, jobs wait for one that stays
            self.drive.handle(WorkerKept(worker))
        self.drive.drain()
        assert len(self.drive.ended) == self.jobs
        self.drive.replay()


Lives.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestLives = Lives.TestCase
