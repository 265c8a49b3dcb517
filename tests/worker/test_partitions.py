"""An owner's partitions: only what is committed gets in, once and whole, and comes out sorted."""

import os
import select
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from zlib import crc32

import pytest

from zmqmr.data.sort import merged
from zmqmr.errors import Corrupt, SpillError
from zmqmr.messages import FrameCount
from zmqmr.net.frames import FrameHeader
from zmqmr.worker.partitions import Partitions

Make = Callable[..., Partitions]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes partitions below the test's folder."""
    made = []

    def partitions(
        sort: Sequence[str] = ("sort",), run_bytes: int = 10_000, hold_bytes: int = 10_000
    ) -> Partitions:
        made.append(Partitions([str(tmp_path / "shuffle")], sort, "1M", run_bytes, hold_bytes, 2))
        return made[-1]

    yield partitions
    for each in made:
        each.remove()


def send(partitions: Partitions, task: str, partition: int, *payloads: bytes, attempt: int = 1) -> FrameCount:
    """An attempt's frames arrive."""
    for sequence, payload in enumerate(payloads):
        partitions.receive(FrameHeader("job", 0, task, attempt, 1, partition, sequence, 0), payload)
    content = b"".join(payloads)
    return FrameCount(partition, len(payloads), len(content), crc32(content))


def wait_for_sorts(partitions: Partitions) -> None:
    while descriptors := partitions.descriptors:
        for descriptor in select.select(descriptors, [], [])[0]:
            partitions.sort_ended(descriptor)


def outcome(partitions: Partitions, number: int) -> list[str] | SpillError:
    """The runs of a partition, or why there are none."""
    answers: list[list[str] | SpillError] = []
    partitions.when_sorted(number, answers.append)
    wait_for_sorts(partitions)
    (answer,) = answers
    return answer


def content(partitions: Partitions, number: int) -> bytes:
    runs = outcome(partitions, number)
    assert isinstance(runs, list)
    return b"".join(merged(runs, ("sort",), "1M", partitions.directories[0], 4096))


def test_committed_records_come_out_sorted(make: Make) -> None:
    partitions = make()
    first = send(partitions, "map-0-00000", 0, b"b\t1\n", b"a\t1\nc\t1\n")
    second = send(partitions, "map-0-00001", 0, b"a\t0\n")
    partitions.commit("map-0-00000", 1, [first])
    partitions.commit("map-0-00001", 1, [second])
    assert content(partitions, 0) == b"a\t0\na\t1\nb\t1\nc\t1\n"
    assert content(partitions, 1) == b""


def test_records_that_are_not_committed_stay_out(make: Make) -> None:
    partitions = make()
    send(partitions, "map-0-00000", 0, b"lost\t1\n")
    kept = send(partitions, "map-0-00000", 0, b"kept\t1\n", attempt=2)
    partitions.commit("map-0-00000", 2, [kept])
    partitions.discard("map-0-00000", 1)
    assert content(partitions, 0) == b"kept\t1\n"


@pytest.mark.parametrize("hold_bytes", [0, 7, 10_000])
def test_frames_beyond_the_memory_wait_in_files(make: Make, hold_bytes: int, tmp_path: Path) -> None:
    partitions = make(hold_bytes=hold_bytes)
    counts = [
        send(partitions, "map-0-00000", 0, b"a\t1\n", b"c\t1\n", b"bb\t1\n"),
        send(partitions, "map-0-00000", 1, b"x\t1\n", b"\0\xff\t\n"),
    ]
    assert bool(list(tmp_path.glob("shuffle/*.held"))) == (hold_bytes < 10_000)
    assert partitions.holds("map-0-00000", 1, counts)
    partitions.commit("map-0-00000", 1, counts)
    assert content(partitions, 0) == b"a\t1\nbb\t1\nc\t1\n"
    assert content(partitions, 1) == b"\0\xff\t\nx\t1\n"
    assert not list(tmp_path.glob("shuffle/*.held"))


def test_memory_is_given_back_by_commits_and_discards(make: Make, tmp_path: Path) -> None:
    partitions = make(hold_bytes=10)
    for number in range(20):
        count = send(partitions, f"map-0-{number:05d}", 0, b"12345678\n")
        assert not list(tmp_path.glob("shuffle/*.held"))
        if number % 2:
            partitions.commit(f"map-0-{number:05d}", 1, [count])
        else:
            partitions.discard(f"map-0-{number:05d}", 1)
    assert content(partitions, 0) == b"12345678\n" * 10


def test_discarded_files_are_removed(make: Make, tmp_path: Path) -> None:
    partitions = make(hold_bytes=0)
    send(partitions, "map-0-00000", 0, b"a\t1\n")
    partitions.discard("map-0-00000", 1)
    assert not list(tmp_path.glob("shuffle/*"))
    partitions.discard("map-0-00000", 1)


def test_a_commit_waits_until_all_frames_are_there(make: Make) -> None:
    partitions = make()
    counts = [FrameCount(0, 2, 8), FrameCount(1, 1, 4)]
    assert not partitions.holds("map-0-00000", 1, counts)
    send(partitions, "map-0-00000", 0, b"a\t1\n", b"b\t1\n")
    assert not partitions.holds("map-0-00000", 1, counts)
    send(partitions, "map-0-00000", 1, b"c\t1\n")
    assert partitions.holds("map-0-00000", 1, counts)
    assert partitions.holds("map-0-00009", 1, [])


def test_a_missing_frame_fails_the_commit_and_nothing_of_it_gets_in(make: Make) -> None:
    partitions = make()
    good = send(partitions, "map-0-00000", 0, b"a\t1\n")
    header = FrameHeader("job", 0, "map-0-00000", 1, 1, 1, 1, 0)
    with pytest.raises(SpillError, match=r"frame 1 .* when 0 was next") as caught:
        partitions.receive(header, b"b\t1\n")
    partitions.refuse(header, caught.value)
    counts = [good, FrameCount(1, 2, 8)]
    assert partitions.holds("map-0-00000", 1, counts), "it would wait for ever"
    with pytest.raises(SpillError):
        partitions.commit("map-0-00000", 1, counts)
    assert content(partitions, 0) == b""


@pytest.mark.parametrize("count", [FrameCount(1, 1, 5), FrameCount(1, 1, 3), FrameCount(2, 0, 1)])
def test_another_size_than_was_sent_fails_the_commit_and_nothing_gets_in(
    make: Make, count: FrameCount
) -> None:
    partitions = make()
    good = send(partitions, "map-0-00000", 0, b"a\t1\n")
    send(partitions, "map-0-00000", 1, b"b\t1\n")
    assert partitions.holds("map-0-00000", 1, [good, count])
    with pytest.raises(SpillError, match="came"):
        partitions.commit("map-0-00000", 1, [good, count])
    assert content(partitions, 0) == b""


def test_more_frames_than_were_sent_fail_the_commit(make: Make) -> None:
    partitions = make()
    send(partitions, "map-0-00000", 0, b"a\t1\n", b"a\t1\n")
    count = FrameCount(0, 1, 4)
    assert partitions.holds("map-0-00000", 1, [count])
    with pytest.raises(SpillError):
        partitions.commit("map-0-00000", 1, [count])


def test_full_buffers_are_sorted_while_more_arrives(make: Make) -> None:
    partitions = make(run_bytes=50)
    lines = [b"%03d\tvalue\n" % (number * 37 % 100) for number in range(100)]
    for number, line in enumerate(lines):
        task = f"map-0-{number:05d}"
        partitions.commit(task, 1, [send(partitions, task, 0, line)])
    runs = outcome(partitions, 0)
    assert isinstance(runs, list) and len(runs) == 20
    assert content(partitions, 0) == b"".join(sorted(lines))


def test_the_same_partition_may_be_asked_for_again(make: Make) -> None:
    partitions = make()
    partitions.commit("map-0-00000", 1, [send(partitions, "map-0-00000", 0, b"a\t1\n")])
    assert content(partitions, 0) == content(partitions, 0) == b"a\t1\n"


def failing_sort(folder: Path) -> tuple[str, ...]:
    """A sort program that fails as long as the file "broken" exists."""
    program = folder / "sometimes-sort"
    program.write_text(
        "#!/bin/sh\n"
        f'if [ -e {folder}/broken ]; then echo "the drive is on fire" >&2; exit 2; fi\n'
        'exec sort "$@"\n'
    )
    program.chmod(0o755)
    (folder / "broken").touch()
    return (str(program),)


def test_a_failed_sort_is_reported_and_tried_again_by_the_next_attempt(make: Make, tmp_path: Path) -> None:
    partitions = make(sort=failing_sort(tmp_path), run_bytes=10)
    lines = [b"b\t123456789\n", b"a\t123456789\n", b"c\n"]
    for number, line in enumerate(lines):
        task = f"map-0-{number:05d}"
        partitions.commit(task, 1, [send(partitions, task, 0, line)])
    failed = outcome(partitions, 0)
    assert isinstance(failed, SpillError) and "the drive is on fire" in str(failed)
    assert isinstance(outcome(partitions, 0), SpillError)
    os.unlink(tmp_path / "broken")
    assert content(partitions, 0) == b"".join(sorted(lines))


def test_a_sort_that_cannot_be_started_is_reported(make: Make, tmp_path: Path) -> None:
    partitions = make(sort=(str(tmp_path / "no-such-sort"),))
    partitions.commit("map-0-00000", 1, [send(partitions, "map-0-00000", 0, b"a\t1\n")])
    failed = outcome(partitions, 0)
    assert isinstance(failed, SpillError) and "no-such-sort" in str(failed)


def test_a_directory_that_cannot_be_written_is_reported(make: Make, tmp_path: Path) -> None:
    partitions = make(hold_bytes=0)
    os.rmdir(tmp_path / "shuffle")
    with pytest.raises(SpillError, match="cannot write") as caught:
        send(partitions, "map-0-00000", 0, b"a\t1\n")
    assert not isinstance(caught.value, Corrupt)
    assert caught.value.path.startswith(str(tmp_path))


def test_removing_ends_the_sorts_that_run(make: Make, tmp_path: Path) -> None:
    program = tmp_path / "slow-sort"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    partitions = make(sort=(str(program),), run_bytes=1)
    for number in range(4):
        task = f"map-0-{number:05d}"
        partitions.commit(task, 1, [send(partitions, task, number, b"a\t1\n")])
    assert len(partitions.descriptors) == 2, "no more sorts at a time than allowed"
    partitions.remove()
    assert partitions.descriptors == []


def test_f20_nothing_is_left_of_a_partition_that_is_made_again(make: Make, tmp_path: Path) -> None:
    """One of its sorts has just ended, the other one still runs."""
    program = tmp_path / "sometimes-slow-sort"
    program.write_text(f'#!/bin/sh\nif mkdir {tmp_path}/flag; then exec sort "$@"; fi\nexec sleep 1000\n')
    program.chmod(0o755)
    partitions = make(sort=(str(program),), run_bytes=1)
    partitions.commit("map-0-00000", 1, [send(partitions, "map-0-00000", 0, b"a\t1\n")])
    (ended,) = partitions.descriptors
    select.select([ended], [], [])
    partitions.commit("map-0-00001", 1, [send(partitions, "map-0-00001", 0, b"b\t1\n")])
    assert len(partitions.descriptors) == 2
    partitions.reset(0)
    wait_for_sorts(partitions)
    assert list((tmp_path / "shuffle").iterdir()) == [] and partitions.seals == {}
    partitions.commit("map-0-00002", 1, [send(partitions, "map-0-00002", 1, b"c\t1\n")])
    assert partitions.volume(0) == 0 and partitions.volume(1) == 4


@pytest.mark.parametrize("damage", ["a bit flips", "it is cut", "something is added"])
def test_f20_damage_to_what_came_from_others_is_found_before_it_is_sorted(
    make: Make, tmp_path: Path, damage: str
) -> None:
    partitions = make()
    for number, line in enumerate([b"b\t1\n", b"a\t1\n"]):
        task = f"map-0-{number:05d}"
        partitions.commit(task, 1, [send(partitions, task, 0, line)])
    (path,) = (path for path in tmp_path.glob("shuffle/partition-0.*"))
    content = path.read_bytes()
    flipped = content[:5] + bytes([content[5] ^ 1]) + content[6:]
    path.write_bytes(
        {"a bit flips": flipped, "it is cut": content[:4], "something is added": content + b"c\t1\n"}[damage]
    )
    failed = outcome(partitions, 0)
    assert isinstance(failed, Corrupt) and str(path) in str(failed)
