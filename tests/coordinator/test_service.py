"""A coordinator that lives long: its journal does not grow with the jobs it has seen."""

from pathlib import Path

import pytest
from core.driver import snapshot
from core.strategies import make_spec

from zmqmr.coordinator import service
from zmqmr.coordinator.service import Coordinator
from zmqmr.coordinator.store_server import StoreServer
from zmqmr.core.events import (
    JobCancelled,
    JobSubmitted,
    Tick,
    WorkerDrained,
    WorkerJoined,
    WorkerKept,
    WorkerLost,
)
from zmqmr.messages import Leave, encode
from zmqmr.net.sockets import worker_identity
from zmqmr.settings import Settings


def coordinator(place: Path, name: str) -> Coordinator:
    return Coordinator(
        f"ipc://{place}/{name}", Settings(), None, str(place / "journal"), lambda message: None
    )


def test_the_journal_is_shortened_when_no_job_is_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LONG_JOURNAL", 50)
    first = coordinator(tmp_path, "first")
    first._handle(WorkerJoined("w0", 1, "host", 2, "ipc://nowhere"))
    most = 0
    for number in range(200):
        first._handle(JobSubmitted(b"client:1", make_spec(job=f"job-{number}")))
        first._handle(JobCancelled(f"job-{number}", "enough"))
        first._handle(WorkerJoined("w0", number + 2, "host", 2, "ipc://nowhere"))
        first._carry_out_all()
        first._shorten_journal()
        most = max(most, len(list(first._journal.replay())))
    first._handle(JobSubmitted(b"client:1", make_spec(job="live")))
    first._carry_out_all()
    first._shorten_journal()
    before = snapshot(first._scheduler), dict(first._scheduler.ended)
    first._close()
    assert most <= 50 + 3

    second = coordinator(tmp_path, "second")
    assert (snapshot(second._scheduler), dict(second._scheduler.ended)) == before
    second._close()


def test_a_worker_that_says_goodbye_is_gone_at_once(tmp_path: Path) -> None:
    only = coordinator(tmp_path, "only")
    only._handle(WorkerJoined("w0", 7, "host", 2, "ipc://nowhere"))
    only._receive(worker_identity("w0", 6), encode(Leave(6)), b"")  # an earlier life
    assert "w0" in only._scheduler.workers
    only._receive(worker_identity("w0", 7), encode(Leave(7)), b"")
    assert "w0" not in only._scheduler.workers
    only._close()


def test_its_log_says_who_comes_and_goes_and_what_begins_and_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "zmqmr.coordinator")
    only = coordinator(tmp_path, "only")
    only._handle(WorkerJoined("w0", 7, "host", 2, "ipc://nowhere"))
    for _ in range(2):  # a client says it again when it has heard nothing
        only._handle(JobSubmitted(b"client:1", make_spec(job="job-1")))
    only._handle(WorkerDrained("w0"))
    only._handle(WorkerKept("w0"))
    only._handle(WorkerDrained("nobody"))
    only._handle(Tick())
    only._handle(JobCancelled("job-1", "by\x1b[2J you\nand more"))
    only._handle(WorkerLost("w0"))
    only._handle(WorkerLost("w0"))
    only._close()
    assert caplog.messages == [
        "worker w0 joins with 2 slots",
        "job job-1 begins",
        "worker w0 is to leave",
        "worker w0 is to stay",
        "job job-1 was killed: by?[2J you",
        "worker w0 is gone",
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_coordinator_whose_store_has_ended_ends_so_that_it_is_started_again_F9(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: StoreServer) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(StoreServer, "_take", fail)
    only = Coordinator(
        endpoint=f"ipc://{tmp_path}/control",
        settings=Settings(),
        lifeline=None,
        journal=str(tmp_path / "journal"),
        note=lambda message: None,
        store=f"ipc://{tmp_path}/store",
        store_directory=str(tmp_path / "files"),
    )
    with pytest.raises(RuntimeError, match="store has ended"):
        only.run()
