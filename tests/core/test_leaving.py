"""Workers that are to leave, and what a scheduler without jobs is made of again."""

from core.driver import CLIENT, WORKER_TIMEOUT, Driver, snapshot
from core.strategies import MAP_REDUCE, SCRIPT, make_spec, make_step
from core.test_scheduler import MAP, REDUCE, driver
from msgspec.structs import replace

from zmqmr.core.events import ClientAttached, JobSubmitted, WorkerDrained, WorkerKept, WorkerLost
from zmqmr.core.scheduler import Scheduler
from zmqmr.messages import JobEnded, JobUpdate, Launch


def test_a_draining_worker_finishes_what_it_runs_and_gets_no_other_task() -> None:
    drive = driver(make_spec(splits=3), w0=1, w1=1)
    on_w0 = next(entry for entry in drive.launches if entry[0] == "w0")
    drive.handle(WorkerDrained("w0"))
    drive.finish(on_w0)
    assert [worker for worker, _, _ in drive.launches].count("w0") == 1
    assert not drive.scheduler.needs("w0") and drive.scheduler.needs("w1")
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_a_draining_worker_owns_no_partition_of_a_stage_that_begins() -> None:
    drive = Driver()
    drive.join("w0")
    drive.join("w1")
    drive.handle(WorkerDrained("w0"))
    drive.handle(JobSubmitted(CLIENT, make_spec(MAP_REDUCE, splits=2)))
    while not drive.ended:
        for task in (MAP, "map-0-00001", REDUCE):
            if drive.scheduler.jobs and drive.task(task).state.value == "running":
                drive.finish(drive.newest(task))
    assert {worker for worker, _, _ in drive.launches} == {"w1"}


def test_a_draining_worker_hands_over_what_it_owns_and_is_free_before_the_job_ends() -> None:
    drive = driver(make_spec(make_step(reducer=SCRIPT, partitions=2), splits=3), w0=1, w1=1)
    on_w0, on_w1 = (next(entry for entry in drive.launches if entry[0] == name) for name in ("w0", "w1"))
    drive.finish(on_w0)
    stays = drive.newest("map-0-00002")
    drive.handle(WorkerDrained("w0"))
    if stays[0] == "w0":  # what it runs it ends
        drive.finish(stays)
    while drive.scheduler.needs("w0"):
        replay = next(entry for entry in reversed(drive.launches) if entry[0] == "w0")
        assert replay[2].replay, "its spool for the new owner of its partition"
        drive.finish(replay)
    assert not drive.ended
    drive.handle(WorkerLost("w0"))
    drive.finish(on_w1)
    drive.drain()
    assert drive.ended["job"].state == "succeeded"
    executed = [launch.task for _, _, launch in drive.launches if not launch.replay]
    assert len(executed) == len(set(executed)), "nothing that was finished runs again"


def test_a_job_waits_and_says_why_when_all_workers_are_draining() -> None:
    drive = Driver()
    drive.join("w0")
    drive.handle(WorkerDrained("w0"))
    drive.handle(JobSubmitted(CLIENT, make_spec(MAP_REDUCE)))
    assert not drive.told(Launch)
    drive.now += 1
    drive.tick()
    (update,) = drive.told(JobUpdate)
    assert update.waiting == "all workers are being drained"
    drive.join("w0")  # it was started again: a new life
    assert drive.told(Launch, "w0")


def test_a_worker_that_is_to_stay_after_all_takes_work_again() -> None:
    drive = Driver()
    drive.join("w0")
    drive.handle(WorkerDrained("w0"))
    drive.handle(JobSubmitted(CLIENT, make_spec(MAP_REDUCE)))
    assert not drive.told(Launch)
    drive.handle(WorkerKept("w0"))
    assert drive.told(Launch, "w0")
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_a_drained_worker_that_nobody_knows_changes_nothing() -> None:
    drive = Driver()
    drive.join("w0")
    before = snapshot(drive.scheduler)
    drive.handle(WorkerDrained("w9"))
    assert snapshot(drive.scheduler) == before


def test_the_summary_makes_a_scheduler_without_jobs_again() -> None:
    drive = driver(make_spec(), w0=2, w1=1)
    drive.handle(WorkerDrained("w1"))
    drive.drain()
    again = Scheduler(drive.scheduler.worker_timeout_seconds, drive.scheduler.worker_wait_seconds)
    for event in drive.scheduler.summary():
        again.handle(event, drive.now)
    assert snapshot(again) == snapshot(drive.scheduler)
    assert again.workers == drive.scheduler.workers
    (command,) = again.handle(ClientAttached(b"late", "job"), drive.now)
    assert isinstance(command.message, JobEnded) and command.message == drive.ended["job"]


def test_f12_records_that_cannot_be_delivered_are_tried_from_another_worker_then_fail_the_job() -> None:
    drive = driver(make_spec(MAP_REDUCE), w0=1, w1=1)
    tried = []
    while not drive.ended:
        worker, _, launch = drive.newest(MAP)
        tried.append(worker)
        report = replace(drive.done_message(drive.newest(MAP)), undelivered=(0,))
        drive.report(worker, report)
        if drive.ended:
            break
        drive.confirm_all(launch)
        drive.beat()
        drive.now += WORKER_TIMEOUT + 0.1
        drive.beat()
        drive.tick()
    assert len(tried) == 4 and tried[0] == tried[1] and set(tried) == {"w0", "w1"}
    assert drive.ended["job"].state == "failed"
    assert f"from host host-{tried[-1]} to host host-" in drive.ended["job"].reason


def test_a_job_whose_workers_all_leave_ends_with_what_they_hold() -> None:
    drive = driver(make_spec(MAP_REDUCE), w0=1)
    drive.handle(WorkerDrained("w0"))
    drive.finish(drive.newest(MAP))
    assert drive.newest("reduce-1-00000")[0] == "w0"
    drive.drain()
    assert drive.ended["job"].state == "succeeded"


def test_the_last_task_of_a_draining_worker_ends_the_job_though_the_others_left() -> None:
    drive = driver(make_spec(MAP_REDUCE), w0=1, w1=1)
    drive.finish(drive.newest(MAP))
    owner, _, launch = drive.newest("reduce-1-00000")
    other = "w1" if owner == "w0" else "w0"
    for name in ("w0", "w1"):
        drive.handle(WorkerDrained(name))
    drive.handle(WorkerLost(other))
    drive.finish(drive.launched(launch.task, launch.attempt))
    assert drive.ended["job"].state == "succeeded"


def test_an_excluded_worker_is_better_than_one_that_leaves() -> None:
    drive = driver(make_spec(splits=3), w0=1)
    drive.join("w1", 1)
    drive.handle(WorkerDrained("w1"))
    for number in range(3):
        entry = next(each for each in reversed(drive.launches) if each[0] == "w0")
        drive.fail(entry, f"bad luck {number}")
    assert not drive.scheduler.workers["w0"].free
    drive.drain()
    assert drive.ended["job"].state == "succeeded"
