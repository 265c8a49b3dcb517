"""Sorted runs and their merge are in byte order, whatever the bytes, and a failed sort is an error."""

import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqmr.data.sort import check_sort, check_sorted, merged, sort_error, start_sort
from zmqmr.errors import OutOfDisk, SpillError, UsageError
from zmqmr.worker.sinks import WITH_TAB, WITHOUT_TAB, lines_of, unmark

LINES = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"\0")), max_size=20)
FIELDS = st.binary(max_size=4).map(lambda field: field.replace(b"\n", b"\xff").replace(b"\t", b"\x01"))
# Few keys, many of them prefixes of each other, with the bytes just around TAB.
KEYS = st.lists(st.sampled_from([b"\0", b"\x08", b"\x0b", b"a", b" ", b"\xff"]), max_size=2).map(b"".join)


def sort_and_merge(folder: Path, runs: Sequence[Sequence[bytes]], block_bytes: int = 4096) -> list[bytes]:
    """The lines of all runs, each sorted by itself and then merged."""
    targets = []
    for number, lines in enumerate(runs):
        target = folder / f"{number}.run"
        process = start_sort(("sort",), "1M", str(folder), str(target))
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(b"".join(line + b"\n" for line in lines))
        check_sorted(process, str(folder))
        targets.append(str(target))
    blocks = list(merged(targets, ("sort",), "1M", str(folder), block_bytes))
    assert all(block.endswith(b"\n") for block in blocks)
    return [line for block in blocks for line in lines_of(block)]


@settings(deadline=None, max_examples=40)
@given(st.lists(LINES, max_size=3), st.sampled_from([1, 7, 4096]))
def test_merged_runs_are_all_lines_in_byte_order(runs: list[list[bytes]], block_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        got = sort_and_merge(Path(folder), runs, block_bytes)
    assert got == sorted(line for lines in runs for line in lines)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.tuples(KEYS, FIELDS), max_size=15), min_size=1, max_size=3))
def test_the_records_of_a_key_are_neighbours(runs: list[list[tuple[bytes, bytes]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        got = sort_and_merge(Path(folder), [[key + b"\t" + value for key, value in run] for run in runs])
    seen = [key for key, _ in groupby(got, lambda line: line.partition(b"\t")[0])]
    assert len(seen) == len(set(seen))
    assert sorted(got) == got


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.tuples(KEYS, st.none() | FIELDS), max_size=15), min_size=1, max_size=3))
def test_the_marked_records_of_a_key_are_neighbours_in_the_order_of_the_records(
    runs: list[list[tuple[bytes, bytes | None]]],
) -> None:
    def mark(key: bytes, value: bytes | None) -> bytes:
        return key + b"\t" + (WITHOUT_TAB if value is None else WITH_TAB + value)

    with tempfile.TemporaryDirectory() as folder:
        got = sort_and_merge(Path(folder), [[mark(*record) for record in run] for run in runs])
    seen = [key for key, _ in groupby(got, lambda line: line.partition(b"\t")[0])]
    assert len(seen) == len(set(seen))
    records = [unmark(line) for line in got]
    wanted = [key if value is None else key + b"\t" + value for run in runs for key, value in run]
    assert sorted(records) == sorted(wanted)
    for _, group in groupby(records, lambda line: line.partition(b"\t")[0]):
        lines = list(group)
        assert lines == sorted(lines)


def test_no_runs_have_no_lines() -> None:
    assert list(merged([], ("sort",), "1M", "/", 4096)) == []


def test_the_locale_of_the_user_does_not_change_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("LC_COLLATE", "en_US.UTF-8")
    assert sort_and_merge(tmp_path, [[b"b", b"A"], [b"a", b"B"]]) == [
        b"A",
        b"B",
        b"a",
        b"b",
    ]


def test_more_runs_than_one_merge_holds_open(tmp_path: Path) -> None:
    runs = []
    for number in range(501):
        path = tmp_path / str(number)
        path.write_bytes(b"%05d\n" % (501 - number))
        runs.append(str(path))
    got = b"".join(merged(runs, ("sort",), "1M", str(tmp_path), 4096))
    assert lines_of(got) == [b"%05d" % number for number in range(1, 502)]


def test_a_run_that_is_gone_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a\n")
    with pytest.raises(SpillError, match="No such file"):
        list(merged([str(tmp_path / "a"), str(tmp_path / "gone")], ("sort",), "1M", str(tmp_path), 4096))


def test_a_sort_that_fails_is_an_error_with_its_own_words(tmp_path: Path) -> None:
    process = start_sort(("sort", "--no-such-option"), "1M", str(tmp_path), str(tmp_path / "b"))
    assert process.stdin is not None
    process.stdin.close()
    with pytest.raises(SpillError, match="no-such-option"):
        check_sorted(process, str(tmp_path))


def test_a_merge_may_be_left_early(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"line\n" * 200_000)
    blocks = merged([str(tmp_path / "a"), str(tmp_path / "b")], ("sort",), "1M", str(tmp_path), 4096)
    assert next(blocks).startswith(b"line\n")
    blocks.close()  # type: ignore[attr-defined]


def test_a_full_drive_says_what_to_do() -> None:
    error = sort_error(2, "sort: write failed: /x: No space left on device", "/x")
    assert isinstance(error, OutOfDisk)
    assert "TMPDIR" in str(error)


def test_a_sort_program_that_does_not_exist_is_refused() -> None:
    check_sort(("sort",))
    with pytest.raises(UsageError, match="no-such-sort"):
        check_sort(("no-such-sort",))
