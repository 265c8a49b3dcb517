"""Where records go: a key's records to one partition, by a function that never changes."""

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from zlib import crc32

import msgspec
import pytest
import zmq
from core.strategies import MAP_REDUCE, make_spec, make_split, make_step
from hypothesis import given
from hypothesis import strategies as st
from mrjob.protocol import JSONProtocol, RawProtocol

from zmqmr.data.spools import Spool
from zmqmr.messages import FrameCount, Launch, Partitioner, Run, Step
from zmqmr.net.frames import unpack
from zmqmr.net.sockets import acknowledge, shuffle_server
from zmqmr.settings import Settings
from zmqmr.worker.attempt import Attempt
from zmqmr.worker.sinks import WITH_TAB, WITHOUT_TAB, File, Shuffle, lines_of, unmark

PARTITIONS = 5


class Owner:
    """An owner of all partitions: takes frames, and says so when it is asked, until it is stopped."""

    def __init__(self, folder: Path):
        self.endpoint = f"ipc://{folder}/owner"
        self.frames: list[list[bytes]] = []
        self._stopped = Event()
        self._listens = Event()
        self._thread = Thread(target=self._serve)
        self._thread.start()
        self._listens.wait()

    def _serve(self) -> None:
        with zmq.Context() as context, shuffle_server(context, self.endpoint, 1000, 1024) as socket:
            self._listens.set()
            while not self._stopped.is_set():
                if socket.poll(20):
                    peer, *parts = socket.recv_multipart()
                    if parts == [b""]:
                        acknowledge(socket, peer)
                    else:
                        self.frames.append(parts)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    """An owner that listens."""
    each = Owner(tmp_path)
    yield each
    each.stop()


@pytest.fixture
def result() -> Iterator[int]:
    """Where an attempt reports its progress."""
    out, fd = os.pipe()
    yield fd
    os.close(fd)
    os.close(out)


def make_attempt(
    result: int, step: Step = MAP_REDUCE, endpoint: str = "", output: str = "", **settings: float
) -> Attempt:
    partitions = PARTITIONS if endpoint else 0
    launch = Launch(
        "job", "map-0-00000", 1, 0, 0, ((0, "mapper"),), False, make_split(0), None, partitions,
        (endpoint,) * partitions, 1,
    )  # fmt: skip
    output = output or endpoint.removeprefix("ipc://") + ".spool"
    run = Run(launch, 7, (), "/nowhere", output, "")
    return Attempt(run, make_spec(step), None, Settings(**settings), result)  # type: ignore[arg-type]


def received(owner: Owner, counts: tuple[FrameCount, ...]) -> dict[int, list[bytes]]:
    """The lines that came to each partition; checks that they are what the attempt says it sent."""
    payloads: dict[int, list[bytes]] = {count.partition: [] for count in counts}
    for header, payload in map(unpack, owner.frames):
        assert header.sequence == len(payloads[header.partition])
        assert payload.endswith(b"\n")
        payloads[header.partition].append(payload)
    for count in counts:
        came = payloads[count.partition]
        assert (len(came), sum(map(len, came))) == (count.frames, count.bytes)
    return {partition: lines_of(b"".join(came)) for partition, came in payloads.items()}


KEYS = ["a", "b", "", "ä", "long " * 50, 'quo"te', "tab\tkey", "new\nline"]


def test_json_records_go_to_the_partition_of_their_encoded_key(owner: Owner, result: int) -> None:
    shuffle = Shuffle(make_attempt(result, endpoint=owner.endpoint), JSONProtocol().write, marked=False)
    pairs = [(key, number) for number in range(20) for key in KEYS]
    shuffle.add_all(pairs)
    lines = received(owner, shuffle.close())
    assert sorted(line for each in lines.values() for line in each) == sorted(
        JSONProtocol().write(key, value) for key, value in pairs
    )
    for partition, each in lines.items():
        assert all(crc32(line.partition(b"\t")[0]) % PARTITIONS == partition for line in each)


def test_lines_of_a_combiner_meet_the_records_of_their_key(owner: Owner, result: int) -> None:
    shuffle = Shuffle(make_attempt(result, endpoint=owner.endpoint), JSONProtocol().write, marked=False)
    shuffle.add_all([(key, 1) for key in KEYS])
    shuffle.add_lines([JSONProtocol().write(key, 2) for key in KEYS])
    for each in received(owner, shuffle.close()).values():
        keys = [line.partition(b"\t")[0] for line in each]
        assert all(keys.count(key) == 2 for key in keys)


def test_small_frames_bear_every_record_once(owner: Owner, result: int) -> None:
    shuffle = Shuffle(
        make_attempt(result, endpoint=owner.endpoint, frame_bytes=64), JSONProtocol().write, marked=False
    )
    shuffle.add_all([(f"key {number}", number) for number in range(500)])
    counts = shuffle.close()
    assert sum(count.frames for count in counts) > 100
    lines = received(owner, counts)
    assert sorted(line for each in lines.values() for line in each) == sorted(
        b'"key %d"\t%d' % (number, number) for number in range(500)
    )


def test_marked_records_come_back_as_they_were(owner: Owner, result: int) -> None:
    shuffle = Shuffle(make_attempt(result, endpoint=owner.endpoint), None, marked=True)
    records = [b"", b"\t", b"key", b"key\t", b"key\tvalue", b"key\t\x00", b"key\ta\tb", b"\xff\x00\t\xff"]
    shuffle.add_lines(records)
    lines = received(owner, shuffle.close())
    for partition, each in lines.items():
        for line in each:
            assert crc32(line.partition(b"\t")[0]) % PARTITIONS == partition
    assert sorted(unmark(line) for each in lines.values() for line in each) == sorted(records)


def test_a_record_with_a_newline_is_several_records(owner: Owner, result: int) -> None:
    shuffle = Shuffle(make_attempt(result, endpoint=owner.endpoint), RawProtocol().write, marked=True)
    shuffle.add_all([("one\ntwo", "three\nfour")])
    lines = received(owner, shuffle.close())
    assert sorted(unmark(line) for each in lines.values() for line in each) == [
        b"four",
        b"one",
        b"two\tthree",
    ]


@pytest.mark.parametrize(
    "partitioner, chosen",
    [
        (Partitioner("fields", 1, 1, "\t"), [b"a.b", b"a.b", b"a.c", b"x"]),
        (Partitioner("fields", 1, 1, "."), [b"a", b"a", b"a", b"x"]),
        (Partitioner("fields", 2, 0, "."), [b"b", b"b", b"c", b""]),
        (Partitioner("fields", 1, 2, "."), [b"a.b", b"a.b", b"a.c", b"x"]),
        (Partitioner("fields", 2, 2, "\t"), [b"1.5", b"2", b"1", b"1"]),
    ],
)
def test_chosen_fields_choose_the_partition(
    owner: Owner, result: int, partitioner: Partitioner, chosen: list[bytes]
) -> None:
    step = make_step(reducer=MAP_REDUCE.reducer, partitions=PARTITIONS, partitioner=partitioner)
    shuffle = Shuffle(make_attempt(result, step, owner.endpoint), None, marked=True)
    records = [b"a.b\t1.5", b"a.b\t2", b"a.c\t1", b"x\t1"]
    shuffle.add_lines(records)
    where = {
        unmark(line): partition
        for partition, lines in received(owner, shuffle.close()).items()
        for line in lines
    }
    assert where == {record: crc32(key) % PARTITIONS for record, key in zip(records, chosen, strict=True)}


FIELDS = st.binary(max_size=6).map(lambda field: field.replace(b"\t", b" ").replace(b"\n", b" "))


@given(FIELDS, st.lists(st.none() | FIELDS, min_size=2, max_size=6))
def test_marks_keep_the_order_of_a_keys_records(key: bytes, values: list[bytes | None]) -> None:
    def record(value: bytes | None) -> bytes:
        return key if value is None else key + b"\t" + value

    marked = [key + b"\t" + (WITHOUT_TAB if value is None else WITH_TAB + value) for value in values]
    assert [unmark(line) for line in sorted(marked)] == sorted(record(value) for value in values)


def test_a_small_bound_of_lines_does_not_bound_what_many_records_of_a_key_take(
    owner: Owner, result: int
) -> None:
    shuffle = Shuffle(
        make_attempt(result, endpoint=owner.endpoint, max_line_bytes=100), JSONProtocol().write, marked=False
    )
    shuffle.add_all([("key", "x" * 80)] * 20_000)
    (lines,) = received(owner, shuffle.close()).values()
    assert len(lines) == 20_000


def test_records_of_our_own_partitions_are_in_the_spool_only_and_all_are_there(
    owner: Owner, result: int
) -> None:
    attempt = make_attempt(result, endpoint=owner.endpoint)
    ours = "ipc://ourselves"
    owners = (ours, owner.endpoint, "", owner.endpoint, ours)
    launch = msgspec.structs.replace(attempt.launch, owners=owners)
    attempt.run = msgspec.structs.replace(attempt.run, launch=launch, shuffle=ours)
    attempt.launch = launch
    shuffle = Shuffle(attempt, JSONProtocol().write, marked=False)
    pairs = [(f"key {number}", number) for number in range(200)]
    shuffle.add_all(pairs)
    counts = {count.partition: count for count in shuffle.close()}
    assert [bool(counts[number].frames) for number in range(PARTITIONS)] == [False, True, False, True, False]
    spool = Spool(attempt.run.output)
    kept = {number: b"".join(spool.blocks(number)) for number in range(PARTITIONS)}
    assert sorted(line for part in kept.values() for line in lines_of(part)) == sorted(
        JSONProtocol().write(key, value) for key, value in pairs
    )
    for number, part in kept.items():
        assert (counts[number].bytes, counts[number].crc32) == (len(part), crc32(part))
    for number, lines in received(owner, tuple(counts[number] for number in (1, 3))).items():
        assert lines_of(kept[number]) == lines


def test_an_owner_that_does_not_answer_is_named_and_the_spool_has_its_records(
    tmp_path: Path, result: int
) -> None:
    attempt = make_attempt(result, endpoint=f"ipc://{tmp_path}/nobody", answer_seconds=0.2)
    shuffle = Shuffle(attempt, JSONProtocol().write, marked=False)
    shuffle.add_all([("key", 1)])
    (count,) = shuffle.close()
    assert attempt.done(()).undelivered == tuple(range(PARTITIONS))
    assert count.frames == 0
    assert b"".join(Spool(attempt.run.output).blocks(count.partition)) == b'"key"\t1\n'


@given(st.lists(st.binary(max_size=5).map(lambda line: line.replace(b"\n", b" "))))
def test_lines_of_a_block(lines: list[bytes]) -> None:
    assert lines_of(b"".join(line + b"\n" for line in lines)) == lines


def test_a_file_holds_one_line_a_record(tmp_path: Path, result: int) -> None:
    attempt = make_attempt(result, output=str(tmp_path / "part"))
    file = File(attempt, JSONProtocol().write)
    file.add_all([("a", 1), ("b", 2)])
    file.add_lines([b"as it is"])
    assert file.close() == (FrameCount(0, 0, 21, crc32((tmp_path / "part").read_bytes())),)
    assert (tmp_path / "part").read_bytes() == b'"a"\t1\n"b"\t2\nas it is\n'
    assert (attempt.output_records, attempt.output_bytes) == (3, 21)
