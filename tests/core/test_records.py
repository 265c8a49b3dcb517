"""Records that fail or crash their mapper: found, and left out when the job may."""

from core.driver import CLIENT, Driver
from core.strategies import make_spec

from zmqmr.core.events import AttemptSilent, JobSubmitted
from zmqmr.messages import AttemptFailed, AttemptReport, Failure, Launch, RecordAt

MAP = "map-0-00000"


def job(skip: int = 0, **slots: int) -> Driver:
    drive = Driver()
    for name, count in (slots or {"w0": 1}).items():
        drive.join(name, count)
    drive.handle(JobSubmitted(CLIENT, make_spec(skip_bad_records=skip)))
    return drive


def fail_at(drive: Driver, offset: int | None, crashed: bool = False) -> None:
    worker, epoch, launch = drive.newest(MAP)
    failure = Failure(
        "bad record", path="/in/0" if offset is not None else "", offset=offset, crashed=crashed
    )
    drive.report(worker, AttemptFailed(launch.job, launch.task, launch.attempt, epoch, failure))


def launched(drive: Driver) -> Launch:
    (launch,) = drive.told(Launch)
    return launch


def reports(drive: Driver) -> list[AttemptReport]:
    """What the last event had the client told about attempts."""
    return [each.message for each in drive.commands if isinstance(each.message, AttemptReport)]


def test_after_a_crash_the_next_attempt_is_careful() -> None:
    drive = job()
    assert not drive.newest(MAP)[2].careful
    fail_at(drive, None, crashed=True)
    assert launched(drive).careful
    fail_at(drive, 7)
    assert launched(drive).careful


def test_a_record_is_left_out_when_it_has_failed_twice() -> None:
    drive = job(skip=1)
    fail_at(drive, 7)
    assert launched(drive).skip == ()
    fail_at(drive, 7)
    assert launched(drive).skip == (RecordAt("/in/0", 7),)
    (report,) = drive.told(AttemptReport)
    assert (report.left_out, report.attempt, report.attempts) == (True, 2, 6), "four more may fail"
    assert drive.task(MAP).failures == 0
    drive.finish(drive.newest(MAP))
    assert drive.ended["job"].state == "succeeded"


def test_a_record_that_failed_once_is_tried_again() -> None:
    drive = job(skip=9)
    fail_at(drive, 7)
    fail_at(drive, 8)
    fail_at(drive, 7)
    assert launched(drive).skip == ()


def test_no_more_records_are_left_out_than_allowed() -> None:
    drive = job(skip=1)
    for offset in (7, 7, 8, 8, 8, 8):
        fail_at(drive, offset)
        (report,) = drive.told(AttemptReport)
    assert (report.left_out, report.final, report.attempt, report.attempts) == (False, True, 6, 6)
    assert drive.ended["job"].state == "failed"
    assert "1 record was left out before; --skip-bad-records 1 allows no more" in drive.ended["job"].reason


def test_an_attempt_that_makes_no_progress_is_taken_for_one_that_crashed() -> None:
    """What its worker knows of its end, where it was, is kept."""
    drive = job()
    _, _, launch = drive.newest(MAP)
    drive.handle(AttemptSilent("job", MAP, launch.attempt))
    fail_at(drive, 7)
    (said,) = reports(drive)
    assert "no progress" in said.failure.reason
    assert (said.failure.path, said.failure.offset) == ("/in/0", 7)
    assert drive.newest(MAP)[2].careful


def test_without_leave_nothing_is_left_out() -> None:
    drive = job()
    for _ in range(4):
        fail_at(drive, 7)
    assert drive.ended["job"].state == "failed"


def test_a_worker_that_failed_too_often_is_avoided_while_there_are_others() -> None:
    drive = job(w0=1, w1=1)
    first = drive.newest(MAP)[0]
    fail_at(drive, 1)
    other = drive.newest(MAP)[0]
    assert other != first
    drive.scheduler.jobs["job"].failed_on[first] = 3
    fail_at(drive, 2)
    assert drive.newest(MAP)[0] == other

    alone = job(w0=1)
    alone.scheduler.jobs["job"].failed_on["w0"] = 3
    fail_at(alone, 1)
    assert alone.newest(MAP)[0] == "w0"
