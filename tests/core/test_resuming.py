"""A job that resumes another begins when its workers have said what they kept, or have taken too long."""

from core.driver import CLIENT, Driver
from core.strategies import MAP_ONLY, SCRIPT, make_spec, make_step

from zmqmr.core.events import JobCancelled, JobSubmitted, WorkerLost
from zmqmr.core.scheduler import OPENING_SECONDS
from zmqmr.messages import EndJob, JobSpec

KEPT = ["map-0-00000", "map-0-00001"]


def resuming(spec: JobSpec, kept: list[str]) -> Driver:
    """Worker a answers at once, b not yet; b has kept tasks."""
    drive = Driver()
    for name in ("a", "b"):
        drive.join(name, slots=4)
    drive.silent = {"b"}
    drive.kept["b", "job"] = kept
    for name in kept:
        drive._yielded["job", name] = {"0": {"tasks": {name: 1}}}
    drive.handle(JobSubmitted(CLIENT, spec))
    return drive


def opened(drive: Driver) -> None:
    """Worker b answers."""
    drive.silent.clear()
    drive._open("b", "job")


def ran(drive: Driver) -> list[str]:
    """The tasks that ran the job's code."""
    return [launch.task for _, _, launch in drive.launches if not launch.replay]


def test_no_task_runs_that_a_slower_worker_has_kept() -> None:
    drive = resuming(make_spec(make_step(reducer=SCRIPT), splits=3, reuse="earlier"), KEPT)
    assert drive.launches == []

    opened(drive)
    drive.drain()

    assert drive.ended["job"].state == "succeeded"
    assert ran(drive) == ["map-0-00002", "reduce-1-00000"]


def test_the_loss_of_one_worker_does_not_end_the_wait_for_another() -> None:
    drive = resuming(make_spec(make_step(reducer=SCRIPT), splits=3, reuse="earlier"), KEPT)

    drive.handle(WorkerLost("a"))
    drive.join("c", slots=4)
    assert drive.launches == []

    opened(drive)
    drive.drain()
    assert ran(drive) == ["map-0-00002", "reduce-1-00000"]


def test_a_worker_that_is_lost_or_silent_is_not_awaited_for_ever() -> None:
    lost = resuming(make_spec(MAP_ONLY, splits=2, reuse="earlier"), [])
    lost.handle(WorkerLost("b"))
    assert ran(lost) == KEPT

    silent = resuming(make_spec(MAP_ONLY, splits=2, reuse="earlier"), [])
    while silent.now <= OPENING_SECONDS:
        assert ran(silent) == []
        silent.now += 1.0
        silent.beat()
        silent.tick()
    assert ran(silent) == KEPT


def test_a_job_that_resumes_none_begins_at_once() -> None:
    assert ran(resuming(make_spec(MAP_ONLY, splits=2), [])) == KEPT


def test_parts_that_the_store_has_kept_need_not_be_made() -> None:
    """Of a map-only job, and of a reduce stage: then not even its input is shuffled."""
    map_only = resuming(make_spec(MAP_ONLY, splits=3, reuse="earlier", stored=True), KEPT)
    opened(map_only)
    map_only.drain()
    assert map_only.ended["job"].state == "succeeded"
    assert ran(map_only) == ["map-0-00002"]
    assert [stage.reused for stage in map_only.ended["job"].stages] == [2]

    reduce = make_spec(make_step(reducer=SCRIPT), splits=2, reuse="earlier", stored=True)
    whole = resuming(reduce, [*KEPT, "reduce-1-00000"])
    opened(whole)
    whole.drain()
    assert whole.ended["job"].state == "succeeded"
    assert ran(whole) == [] and not any(any(launch.owners) for _, _, launch in whole.launches)


def test_a_part_that_is_gone_is_made_again_and_not_counted_as_reused() -> None:
    drive = resuming(make_spec(MAP_ONLY, splits=1, reuse="earlier", stored=True), KEPT[:1])
    opened(drive)
    drive.fail(drive.newest(KEPT[0]))
    drive.drain()
    assert drive.ended["job"].state == "succeeded"
    assert ran(drive) == KEPT[:1]
    assert [stage.reused for stage in drive.ended["job"].stages] == [0]


def test_a_job_of_one_machine_keeps_no_parts() -> None:
    drive = resuming(make_spec(MAP_ONLY, splits=2, reuse="earlier"), KEPT)
    opened(drive)
    assert ran(drive) == KEPT


def test_a_worker_that_missed_the_end_of_a_job_is_told() -> None:
    """What it kept of one that succeeded is of no use; of one that failed it may be."""
    drive = Driver()
    drive.join("a")
    drive.handle(JobSubmitted(CLIENT, make_spec(MAP_ONLY, job="good")))
    drive.drain()
    drive.handle(JobSubmitted(CLIENT, make_spec(MAP_ONLY, job="bad")))
    drive.handle(JobCancelled("bad", "killed"))
    drive.join("b")
    assert drive.told(EndJob, "b") == [EndJob("good")]
