"""Row F8: whatever happens to the journal's files, a replay gives a prefix of what was written."""

import os
import shutil
import sqlite3
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zmqmr.coordinator.journal import _KINDS, Journal
from zmqmr.core import events
from zmqmr.core.events import (
    AttemptSilent,
    CoordinatorRestarted,
    Event,
    JobCancelled,
    Reported,
    WorkerJoined,
    WorkerLost,
)
from zmqmr.messages import Committed

SUFFIXES = ("", "-wal", "-shm")

Entry = tuple[float, Event]


def _some_events(count: int) -> list[Entry]:
    """Events of several kinds, every one different."""
    entries: list[Entry] = []
    for number in range(count):
        event: Event = [
            WorkerJoined(f"worker-{number}", number, "host", 4, "ipc:///nowhere"),
            Reported("worker", Committed("job", f"map-0-{number}", 1, 7)),
            AttemptSilent("job", f"task-{number}", 2),
            JobCancelled("job", f"reason {number}"),
            WorkerLost(f"worker-{number}"),
        ][number % 5]
        entries.append((number * 0.5, event))
    return entries


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a journal whose writer was killed: 40 events, eight transactions."""
    folder = tmp_path_factory.mktemp("written")
    alive = tmp_path_factory.mktemp("alive")
    journal = Journal(str(alive / "journal"))
    entries = _some_events(40)
    for first in range(0, 40, 5):
        journal.append(entries[first : first + 5])
    for suffix in SUFFIXES:  # copied while it is open, as a kill leaves them
        shutil.copy(alive / f"journal{suffix}", folder)
    journal.close()
    return folder


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the one file of a journal that was closed in order."""
    folder = tmp_path_factory.mktemp("closed")
    journal = Journal(str(folder / "journal"))
    journal.append(_some_events(40))
    journal.close()
    return folder


def _copy(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target / "journal"


def _replayed(path: Path) -> list[Entry]:
    """What a new coordinator would take up; it can go on writing."""
    journal = Journal(str(path))
    try:
        entries = list(journal.replay())
        journal.cut(len(entries))
        extra: Entry = (1000.0, CoordinatorRestarted())
        journal.append([extra])
        assert list(journal.replay()) == [*entries, extra]
        return entries
    finally:
        journal.close()


def _assert_prefix(entries: list[Entry]) -> None:
    assert entries == _some_events(40)[: len(entries)]


def test_f8_a_journal_gives_back_what_was_written(written: Path, closed: Path, tmp_path: Path) -> None:
    for folder in (written, closed):
        assert _replayed(_copy(folder, tmp_path / "copy")) == _some_events(40)


def test_f8_a_journal_without_its_shared_memory_file_is_whole(written: Path, tmp_path: Path) -> None:
    path = _copy(written, tmp_path / "copy")
    os.unlink(f"{path}-shm")
    assert _replayed(path) == _some_events(40)


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_f8_a_journal_cut_anywhere_gives_a_prefix(written: Path, tmp_path: Path, suffix: str) -> None:
    """The one file holds little but its header; the other all the events."""
    size = (written / f"journal{suffix}").stat().st_size
    lengths = set()
    for cut in sorted({*range(0, min(size, 200), 7), *range(0, size, max(1, size // 60)), size - 1}):
        path = _copy(written, tmp_path / "copy")
        os.truncate(f"{path}{suffix}", cut)
        entries = _replayed(path)
        _assert_prefix(entries)
        lengths.add(len(entries))
    if suffix:
        assert len(lengths) > 4, "the cuts hit nothing"


def test_f8_a_closed_journal_cut_anywhere_gives_a_prefix(closed: Path, tmp_path: Path) -> None:
    size = (closed / "journal").stat().st_size
    for cut in range(0, size, size // 40):
        path = _copy(closed, tmp_path / "copy")
        os.truncate(path, cut)
        _assert_prefix(_replayed(path))


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_f8_a_journal_with_flipped_bits_gives_a_prefix(
    written: Path, closed: Path, tmp_path: Path, data: st.DataObject
) -> None:
    source, suffix = data.draw(st.sampled_from([(written, ""), (written, "-wal"), (closed, "")]))
    path = _copy(source, tmp_path / "copy")
    damaged = Path(f"{path}{suffix}")
    content = bytearray(damaged.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        offset = data.draw(st.integers(0, len(content) - 1))
        content[offset] ^= 1 << data.draw(st.integers(0, 7))
    damaged.write_bytes(content)
    _assert_prefix(_replayed(path))


@given(garbage=st.binary(max_size=9000))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_f8_a_file_that_is_no_journal_is_put_aside(tmp_path: Path, garbage: bytes) -> None:
    folder = tmp_path / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / "journal"
    path.write_bytes(garbage)
    assert _replayed(path) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE event SET body = x'c0' WHERE number = 21",
        "UPDATE event SET body = substr(body, 1, length(body) - 1) WHERE number = 21",
        "UPDATE event SET kind = 'WorkerLost' WHERE number = 21",
        "UPDATE event SET kind = 'Nothing' WHERE number = 21",
        "UPDATE event SET time = time + 1 WHERE number = 21",
        "UPDATE event SET version = version + 1 WHERE number = 21",
        "UPDATE event SET crc32 = crc32 + 1 WHERE number = 21",
        "UPDATE event SET body = 'text', crc32 = NULL WHERE number = 21",
        "UPDATE event SET time = 'late' WHERE number = 21",
        "UPDATE event SET kind = NULL WHERE number = 21",
    ],
)
def test_f8_a_replay_ends_before_an_event_that_is_not_what_was_written(
    closed: Path, tmp_path: Path, change: str
) -> None:
    path = _copy(closed, tmp_path / "copy")
    database = sqlite3.connect(path)
    database.execute(change)
    database.commit()
    database.close()
    assert _replayed(path) == _some_events(40)[:20]


def test_f8_a_missing_event_ends_the_replay(closed: Path, tmp_path: Path) -> None:
    path = _copy(closed, tmp_path / "copy")
    database = sqlite3.connect(path)
    database.execute("DELETE FROM event WHERE number = 21")
    database.commit()
    database.close()
    assert _replayed(path) == _some_events(40)[:20]


def test_f8_an_append_is_all_or_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    journal.append(_some_events(5))
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON event WHEN (SELECT count(*) FROM event) >= 7"
            " BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    with pytest.raises(sqlite3.Error):
        journal.append(_some_events(10)[5:])
    assert list(journal.replay()) == _some_events(5)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("DROP TRIGGER full")
    journal.append(_some_events(10)[5:])
    journal.close()
    assert list(Journal(str(path)).replay()) == _some_events(10)


def test_a_journal_that_is_replaced_holds_the_new_events_only_and_less_room(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path))
    journal.append(_some_events(5000))
    large = sum(file.stat().st_size for file in tmp_path.iterdir())
    journal.replace(_some_events(3))
    assert list(journal.replay()) == _some_events(3)
    journal.append(_some_events(1))
    journal.close()
    assert _replayed(path) == [*_some_events(3), *_some_events(1)]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < large / 10


def test_every_event_that_is_journalled_can_be_read_again() -> None:
    """Else a coordinator that is killed forgets all that came after the first of that kind."""
    assert set(_KINDS.values()) == set(get_args(Event)) - {events.Tick}
