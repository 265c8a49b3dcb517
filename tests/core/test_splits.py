"""Splits cover every byte of every file once, whatever the settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmr.core.splits import one_file_splits, partition_count, plan_splits
from zmqmr.errors import UsageError
from zmqmr.messages import InputFile, Piece, Split

MIB = 1024**2


def planned(files: list[InputFile], maps: int | None = None, pack: bool = True) -> tuple[Split, ...]:
    """The plan with the default settings."""
    return plan_splits(files, maps=maps, split_floor_bytes=4 * MIB, split_bytes=64 * MIB, pack=pack)


def plain(size: int, name: str = "/in/file") -> InputFile:
    return InputFile(name, size, 1)


files_lists = st.lists(
    st.builds(
        InputFile,
        path=st.sampled_from(["/a", "/b", "/c"]),
        size=st.integers(0, 5000) | st.just(0),
        mtime_ns=st.just(1),
        codec=st.sampled_from(["", "", "gz", "bz2", "zst"]),
    ),
    max_size=20,
)


@given(
    files=files_lists,
    maps=st.none() | st.integers(1, 50),
    floor=st.integers(1, 3000),
    above=st.integers(0, 9000),
    pack=st.booleans(),
    pack_threshold=st.integers(0, 20),
)
def test_pieces_cover_every_file_once_and_in_order(
    files: list[InputFile], maps: int | None, floor: int, above: int, pack: bool, pack_threshold: int
) -> None:
    splits = plan_splits(
        files,
        maps=maps,
        split_floor_bytes=floor,
        split_bytes=floor + above,
        pack=pack,
        pack_threshold=pack_threshold,
    )
    assert splits
    pieces = [piece for split in splits for piece in split.pieces]
    rest = iter(pieces)
    for file in files:
        covered = 0
        while True:
            piece = next(rest)
            assert (piece.file, piece.start) == (file, covered)
            covered += piece.length
            if covered == file.size:
                break
            assert not file.codec, "a compressed file was cut"
            assert piece.length > 0
    assert next(rest, None) is None
    if not pack or len(files) <= pack_threshold:
        assert all(len(split.pieces) <= 1 for split in splits)


@given(size=st.integers(1, 10**7), aim=st.integers(1, 10**6))
def test_a_cut_file_has_pieces_of_about_equal_size(size: int, aim: int) -> None:
    count = -(-size // aim)
    if count > 1000:
        aim = size
    splits = plan_splits([plain(size)], maps=None, split_floor_bytes=aim, split_bytes=aim)
    lengths = [split.pieces[0].length for split in splits]
    assert max(lengths) <= aim
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("size", "count"),
    [(0, 1), (4 * MIB, 1), (4 * MIB + 1, 2), (40 * MIB, 10), (1024 * MIB, 32), (4096 * MIB, 64)],
)
def test_without_maps_the_split_size_is_a_32nd_within_its_bounds(size: int, count: int) -> None:
    assert len(planned([plain(size)])) == count


@pytest.mark.parametrize("maps", [1, 2, 7, 100])
def test_maps_given_makes_that_many_splits_of_one_file(maps: int) -> None:
    assert len(planned([plain(10**6)], maps=maps)) == maps


def test_no_files_make_one_split_without_pieces() -> None:
    assert planned([]) == (Split(()),)


def test_few_empty_files_have_a_split_each_as_inline_has_a_task_each() -> None:
    files = [plain(0, "/a"), plain(0, "/b")]
    assert planned(files) == tuple(Split((Piece(f, 0, 0),)) for f in files)


def test_many_empty_files_share_one_split() -> None:
    assert len(planned([plain(0)] * 500)) == 1


@pytest.mark.parametrize("codec", ["", "gz"])
@pytest.mark.parametrize(("maps", "most"), [(None, 40), (10, 11)])
def test_many_small_files_make_few_splits(codec: str, maps: int | None, most: int) -> None:
    files = [InputFile(f"/in/{i}", 20, 1, codec) for i in range(100_000)]  # type: ignore[arg-type]
    assert most // 4 < len(planned(files, maps=maps)) <= most


def test_pieces_of_a_cut_file_are_not_packed_with_small_files() -> None:
    files = [plain(10, "/small")] * 300 + [plain(200 * MIB, "/large")] + [plain(10, "/small")] * 300
    splits = planned(files)
    assert all(len({piece.file.path for piece in split.pieces}) == 1 for split in splits)
    assert sum(split.pieces[0].file.path == "/large" for split in splits) == 32


@pytest.mark.parametrize("files", [256, 257])
def test_packing_begins_above_the_threshold(files: int) -> None:
    packed = len(planned([plain(20)] * files)) < files
    assert packed == (files > 256)
    assert len(planned([plain(20)] * files, pack=False)) == files


@given(files=files_lists)
def test_one_file_splits_are_the_whole_files(files: list[InputFile]) -> None:
    assert one_file_splits(files) == tuple(Split((Piece(file, 0, file.size),)) for file in files)


@pytest.mark.parametrize(
    ("total", "reduces", "count"),
    [
        (0, None, 1),
        (1, None, 1),
        (80, None, 8),
        (81, None, 9),
        (10**9, None, 32),
        (0, 7, 7),
        (10**9, 100, 100),
    ],
)
def test_partition_count_follows_the_bytes_unless_the_job_says(
    total: int, reduces: int | None, count: int
) -> None:
    assert partition_count(total, reduces=reduces, partition_bytes=10, max_partitions=32) == count


@pytest.mark.parametrize("bad", [0, -1])
def test_counts_below_one_are_refused_with_the_name_to_change(bad: int) -> None:
    with pytest.raises(UsageError, match=r"mapreduce\.job\.maps"):
        planned([plain(1)], maps=bad)
    with pytest.raises(UsageError, match=r"mapreduce\.job\.reduces"):
        partition_count(1, reduces=bad, partition_bytes=1, max_partitions=1)
