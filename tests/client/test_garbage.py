"""What goes and what stays: old and too large goes, what lives never does."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zmqmr.client import records
from zmqmr.client.garbage import collect, collect_if_due
from zmqmr.client.records import Process, Record, Records
from zmqmr.data import places
from zmqmr.settings import Settings

DAY = 86400.0
NOW = 1000 * DAY
ME = records.process(os.getpid())


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return Settings(state_directory=str(tmp_path / "state"), state_days=7.0, state_bytes=1000)


@pytest.fixture
def job(settings: Settings) -> Callable[..., Record]:
    """job(name, days, **fields) makes a job that ended so many days ago and left 400 bytes of spools."""

    def make(name: str, days: float, **fields: object) -> Record:
        data = places.make(places.base_directory(None), name)
        os.makedirs(places.spools(data, name))
        Path(places.spools(data, name), "key").write_bytes(bytes(400))
        Path(data, places.SESSION, "journal").write_bytes(bytes(50))
        values = {"state": "failed", "ended": NOW - days * DAY} | fields
        record = Record(
            job=name, label="", script="", arguments=[], cwd="/", begun=NOW - days * DAY, data=data, **values
        )
        Records.of(settings).write(record)
        Path(Records.of(settings).log_path(name)).write_text("{}\n")
        return record

    return make


def names(settings: Settings) -> list[str]:
    return sorted(os.listdir(settings.jobs_directory))


def test_what_is_older_than_the_limit_goes_with_all_that_belongs_to_it(
    settings: Settings, job: Callable[..., Record]
) -> None:
    old, new = job("old", 8), job("new", 6)
    removed = list(collect(settings, NOW))
    assert not os.path.exists(old.data) and os.path.exists(new.data)
    assert names(settings) == ["new.json", "new.log"]
    assert {each.reason for each in removed} == {"older than 7 days"}
    assert {each.path for each in removed} >= {old.data, Records.of(settings).path("old")}


def test_a_directory_that_another_job_has_emptied_goes(
    settings: Settings, job: Callable[..., Record]
) -> None:
    emptied, full = job("emptied", 1), job("full", 1)
    running = job("running", 0, state="running", boot=records.boot_id(), processes={"client": ME})
    for record in (emptied, running):
        Path(places.spools(record.data, record.job), "key").unlink()
        Path(record.data, places.SESSION, "journal").unlink()
    assert [(each.path, each.reason) for each in collect(settings, NOW)] == [(emptied.data, "it is empty")]
    assert not os.path.exists(emptied.data)
    assert os.path.exists(full.data) and os.path.exists(running.data)


def test_beyond_the_size_the_oldest_data_go_first_and_their_records_stay(
    settings: Settings, job: Callable[..., Record]
) -> None:
    data = [job(f"job{days}", days).data for days in (3, 1, 2)]
    (removed,) = collect(settings, NOW)
    assert [os.path.exists(path) for path in data] == [False, True, True]
    assert (removed.path, removed.bytes) == (data[0], 450)
    assert "job3.json" in names(settings)


def test_old_repro_bundles_go_too(settings: Settings) -> None:
    os.makedirs(settings.repro_directory)
    for name, days in (("old.tar", 8), ("new.tar", 1)):
        path = os.path.join(settings.repro_directory, name)
        Path(path).write_bytes(b"x")
        os.utime(path, (NOW - days * DAY,) * 2)
    list(collect(settings, NOW))
    assert os.listdir(settings.repro_directory) == ["new.tar"]


def test_a_dry_run_says_the_same_and_removes_nothing(settings: Settings, job: Callable[..., Record]) -> None:
    job("old", 8)
    job("lost", 1, state="running", ended=0.0)
    before = names(settings)
    said = [(each.path, each.reason) for each in collect(settings, NOW, dry_run=True)]
    assert said
    assert names(settings) == before
    assert os.path.exists(job("other", 8).data)
    assert set(said) <= {(each.path, each.reason) for each in collect(settings, NOW)}


def test_a_job_that_runs_is_never_touched(settings: Settings, job: Callable[..., Record]) -> None:
    me = {"client": records.process(os.getpid())}
    record = job("alive", 100, state="running", ended=0.0, boot=records.boot_id(), processes=me)
    assert list(collect(settings, NOW)) == []
    assert os.path.exists(os.path.join(record.data, places.SESSION, "journal"))


def test_a_directory_that_somebody_works_in_is_never_touched(
    settings: Settings, job: Callable[..., Record]
) -> None:
    """As when an earlier job is being resumed, or a job has begun and has no record yet."""
    taken_up = job("taken", 100).data
    begins = places.make(places.base_directory(None), "begins")
    os.utime(begins, (NOW - 100 * DAY,) * 2)
    locks = [places.lock(taken_up), places.lock(begins)]
    list(collect(settings, NOW))
    assert os.path.exists(taken_up) and os.path.exists(begins)
    for lock in locks:
        os.close(lock)
    os.utime(begins, (NOW - 100 * DAY,) * 2)
    list(collect(settings, NOW))
    assert not os.path.exists(taken_up) and not os.path.exists(begins)


def test_of_a_lost_job_what_a_later_one_can_use_stays(
    settings: Settings, job: Callable[..., Record], tmp_path: Path
) -> None:
    sockets = tmp_path / "tmp" / "zmqmr-sockets"
    sockets.mkdir(parents=True)
    gone = {"client": Process(os.getpid(), 1)}
    endpoint = f"ipc://{sockets}/coordinator"
    record = job("lost", 1, state="running", ended=0.0, processes=gone, endpoint=endpoint)
    removed = {each.path for each in collect(settings, NOW)}
    assert removed == {str(sockets), os.path.join(record.data, places.SESSION)}
    assert not sockets.exists()
    assert os.listdir(places.spools(record.data, "lost")) == ["key"]
    written = Records.of(settings).read("lost")
    assert written is not None and (written.state, written.ended) == ("lost", NOW)
    assert list(collect(settings, NOW)) == []


def test_it_is_done_by_itself_but_not_at_every_run(settings: Settings, job: Callable[..., Record]) -> None:
    import time

    for name in ("one", "two"):
        job(name, 0, ended=time.time() - 8 * DAY)
        collect_if_due(settings)
    assert [name for name in names(settings) if name.endswith(".json")] == ["two.json"]


def test_a_state_directory_that_cannot_be_made_harms_no_job(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    collect_if_due(Settings(state_directory=str(tmp_path / "file" / "state")))
