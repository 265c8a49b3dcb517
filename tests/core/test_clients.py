"""Clients of a job: whoever is not heard for the lease has its job killed; the output is named at the end."""

from core.driver import CLIENT, Driver
from core.strategies import MAP_REDUCE, make_spec
from core.test_restart import restart
from msgspec.structs import replace

from zmqmr.core.events import ClientAttached, JobSubmitted
from zmqmr.messages import StoredFile

LEASE = 60.0


def submitted(lease: float = LEASE) -> Driver:
    drive = Driver()
    drive.join("w0")
    drive.handle(JobSubmitted(CLIENT, make_spec(), lease))
    return drive


def pass_time(drive: Driver, seconds: float) -> None:
    """In steps in which the worker is heard."""
    end = drive.now + seconds
    while drive.now < end:
        drive.now = min(end, drive.now + 1.0)
        drive.beat()
        drive.tick()


def test_a_job_whose_client_is_silent_for_the_lease_is_killed_F36() -> None:
    drive = submitted()
    pass_time(drive, LEASE)
    assert not drive.ended

    pass_time(drive, 1.0)

    assert drive.ended["job"].state == "killed"
    assert "its client has been gone for 60 seconds" in drive.ended["job"].reason


def test_any_client_that_is_heard_keeps_the_job_F37() -> None:
    drive = submitted()
    for client in (CLIENT, b"client:other", CLIENT):
        pass_time(drive, LEASE - 1)
        drive.handle(ClientAttached(client, "job"))

    assert not drive.ended


def test_a_detached_job_needs_no_client() -> None:
    drive = submitted(lease=0.0)

    pass_time(drive, 10 * LEASE)

    assert not drive.ended


def test_a_coordinator_that_was_away_gives_the_client_time_to_come_back_F7() -> None:
    drive = submitted()
    drive.now += LEASE * 2
    restart(drive)

    pass_time(drive, LEASE - 1)

    assert not drive.ended


def test_the_end_names_the_files_of_committed_attempts_only() -> None:
    drive = Driver()
    drive.join("w0", slots=4)
    drive.handle(JobSubmitted(CLIENT, make_spec(MAP_REDUCE, splits=1)))
    stored = {}
    while "job" not in drive.ended:
        for worker, epoch, launch in list(drive.launches):
            if not drive.is_current(worker, drive.done_message((worker, epoch, launch))):
                continue
            entry = (worker, epoch, launch)
            done = drive.done_message(entry)
            if not launch.partitions:
                name = f"output/part-{launch.number:05d}"
                if launch.attempt == 1:
                    drive.fail(entry)
                    continue
                stored[name] = StoredFile(name, f"{launch.attempt:064x}", launch.attempt)
                done = replace(done, files=(stored[name],))
            drive.report(worker, done)
            drive.confirm_all(launch)
        drive.now += 100.0
        drive.beat()
        drive.tick()

    assert drive.ended["job"].state == "succeeded"
    assert sorted(drive.ended["job"].files) == sorted(stored.values())
    assert all(file.size == 2 for file in stored.values())
