"""Spools: what was written comes back, or it is said that it is damaged."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zmqmr.data.spools import Shelf, Spool, SpoolWriter
from zmqmr.errors import Corrupt
from zmqmr.messages import AttemptDone

BLOCKS = st.lists(st.lists(st.tuples(st.integers(0, 5), st.binary(min_size=1, max_size=9)), max_size=6))
REPORT = AttemptDone("job", "map-0-00000", 1, 7, {"0": {"group": {"counter": 3}}})
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(path: Path, flushes: list[list[tuple[int, bytes]]]) -> dict[int, bytes]:
    """A spool at `path`; what each partition must have."""
    writer = SpoolWriter(str(path))
    expected: dict[int, bytes] = {}
    for blocks in flushes:
        writer.add(blocks)
        for partition, block in blocks:
            expected[partition] = expected.get(partition, b"") + block
    writer.close()
    return expected


@in_one_folder
@given(BLOCKS)
def test_each_partition_comes_back_in_the_order_it_was_written(
    tmp_path: Path, flushes: list[list[tuple[int, bytes]]]
) -> None:
    expected = write(tmp_path / "spool", flushes)
    spool = Spool(str(tmp_path / "spool"))
    assert {number: b"".join(spool.blocks(number)) for number in spool.parts} == expected
    assert b"".join(spool.blocks(99)) == b""


def read(path: Path) -> dict[int, bytes]:
    spool = Spool(str(path))
    return {number: b"".join(spool.blocks(number)) for number in spool.parts}


@in_one_folder
@given(BLOCKS.filter(any), st.data())
def test_f20_a_flipped_bit_anywhere_is_found(
    tmp_path: Path, flushes: list[list[tuple[int, bytes]]], data: st.DataObject
) -> None:
    path = tmp_path / "spool"
    write(path, flushes)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(Corrupt) as caught:
        read(path)
    assert caught.value.path == str(path)


@in_one_folder
@given(BLOCKS.filter(any), st.data())
def test_f20_a_spool_that_was_cut_is_found(
    tmp_path: Path, flushes: list[list[tuple[int, bytes]]], data: st.DataObject
) -> None:
    path = tmp_path / "spool"
    write(path, flushes)
    path.write_bytes(path.read_bytes()[: data.draw(st.integers(0, path.stat().st_size - 1))])
    with pytest.raises(Corrupt):
        read(path)


def test_a_spool_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="No such file"):
        Spool(str(tmp_path / "spool"))


def test_a_shelf_keeps_a_spool_with_its_report_and_hands_it_on(tmp_path: Path) -> None:
    expected = write(tmp_path / "spool", [[(1, b"a")]])
    shelf, other = Shelf(str(tmp_path / "shelf")), Shelf(str(tmp_path / "other"))
    assert shelf.list_keys() == []
    shelf.keep("key", str(tmp_path / "spool"), REPORT)
    assert shelf.list_keys() == ["key"] and not (tmp_path / "spool").exists()
    assert shelf.report("key") == REPORT

    for key in ("key", "no such key"):
        other.take_over(shelf, key)
    assert (shelf.list_keys(), other.list_keys()) == ([], ["key"])
    assert other.report("key") == REPORT
    assert read(Path(other.path("key"))) == expected


def test_the_first_spool_of_a_task_stands(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path / "shelf"))
    for content in (b"first", b"second"):
        write(tmp_path / "spool", [[(0, content)]])
        shelf.keep("key", str(tmp_path / "spool"), REPORT)
    assert b"".join(Spool(shelf.path("key")).blocks(0)) == b"first"


def test_a_report_that_is_damaged_or_missing_makes_the_spool_useless(tmp_path: Path) -> None:
    write(tmp_path / "spool", [[(0, b"a")]])
    shelf = Shelf(str(tmp_path / "shelf"))
    shelf.keep("key", str(tmp_path / "spool"), REPORT)
    side = tmp_path / "shelf" / "key.done"
    content = bytearray(side.read_bytes())
    content[-1] ^= 1
    side.write_bytes(content)
    with pytest.raises(Corrupt):
        shelf.report("key")
    side.unlink()
    assert shelf.list_keys() == []
    shelf.drop("key")
    assert list((tmp_path / "shelf").iterdir()) == []
