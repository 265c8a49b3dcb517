"""A frame is what was sent, or an error."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmr.errors import Corrupt, ProtocolError
from zmqmr.net.frames import FrameHeader, pack, unpack

COUNTS = st.integers(0, 2**40)
NAMES = st.from_regex(r"\A(?!\.{1,2}\Z)[A-Za-z0-9._:-]{1,30}\Z")


@given(NAMES, COUNTS, NAMES, st.tuples(COUNTS, COUNTS), COUNTS, COUNTS, st.binary())
def test_a_frame_comes_back_as_it_went(
    job: str, stage: int, task: str, attempt: tuple[int, int], partition: int, sequence: int, payload: bytes
) -> None:
    header, got = unpack(pack(job, stage, task, *attempt, partition, sequence, payload))
    assert got == payload
    assert (header.job, header.stage, header.task) == (job, stage, task)
    assert (header.attempt, header.version) == attempt
    assert (header.partition, header.sequence) == (partition, sequence)


def test_no_single_bit_can_be_flipped_unnoticed() -> None:
    frame = pack("job", 1, "map-1-00003", 2, 5, 7, 130, b"key\tvalue\n\0\xff\n")
    for part in range(2):
        for bit in range(len(frame[part]) * 8):
            damaged = [bytearray(each) for each in frame]
            damaged[part][bit // 8] ^= 1 << bit % 8
            with pytest.raises((Corrupt, ProtocolError)):
                unpack([bytes(each) for each in damaged])


@given(st.lists(st.binary(max_size=40), max_size=3))
def test_random_bytes_are_an_error(parts: list[bytes]) -> None:
    with pytest.raises((Corrupt, ProtocolError)):
        unpack(parts)


@given(st.data())
def test_a_frame_that_is_cut_is_an_error(data: st.DataObject) -> None:
    frame = pack("job", 0, "map-0-00000", 1, 1, 0, 0, b"a\tb\n" * 10)
    part = data.draw(st.integers(0, 1))
    frame[part] = frame[part][: data.draw(st.integers(0, len(frame[part]) - 1))]
    with pytest.raises((Corrupt, ProtocolError)):
        unpack(frame)


@pytest.mark.parametrize("task", ["../../etc/passwd", "a/b", "", "x" * 201])
def test_a_task_that_is_no_name_is_an_error(task: str) -> None:
    """Names become file names."""
    with pytest.raises(ProtocolError):
        unpack(pack("job", 0, task, 1, 1, 0, 0, b""))


def test_the_checksum_covers_whose_records_they_are() -> None:
    one = FrameHeader("job", 0, "map-0-00000", 1, 0, 0, 0, 0)
    others = [msgspec.structs.replace(one, **{name: 3}) for name in ("attempt", "version", "partition")]
    assert len({each.checksum(b"x") for each in (one, *others)}) == 4
