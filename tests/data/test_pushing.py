"""A pushed split holds what its pieces read from the files, with the same offsets, and nothing else."""

import gzip
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmr.core.splits import plan_splits
from zmqmr.data.inputs import copy_decompressed, list_inputs, nline_splits, read_blocks
from zmqmr.data.pushing import blob_of, fetched, push_splits
from zmqmr.errors import InputVanished
from zmqmr.messages import Piece, Split

TEXTS = st.lists(st.text("ab\n", max_size=12).map(str.encode), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def content(piece: Piece) -> list[tuple[int, bytes]]:
    blocks = list(read_blocks(piece, block_bytes=5, max_line_bytes=100))
    return [(blocks[0][0], b"".join(data for _, data in blocks))] if blocks else []


def there_and_here(scratch: Path, splits: tuple[Split, ...]) -> None:
    for split, (pushed, source) in zip(splits, push_splits(splits), strict=True):
        assert source is not None and source.blob == blob_of(pushed)
        data = b"".join(source.read(at, 3) for at in range(0, source.blob.size, 3))
        assert hashlib.sha256(data).hexdigest() == source.blob.sha256
        (scratch / "blob").write_bytes(data)
        here = fetched(pushed, str(scratch / "blob"))
        assert here is not None
        assert [content(piece) for piece in here.pieces] == [content(piece) for piece in split.pieces]


@given(texts=TEXTS, maps=st.integers(1, 6), packed=st.booleans())
def test_each_piece_reads_the_same_lines_at_the_same_offsets(scratch, texts, maps, packed):
    paths = []
    for number, text in enumerate(texts):
        path = scratch / f"{number}{'.gz' if number % 2 else ''}"
        path.write_bytes(gzip.compress(text) if number % 2 else text)
        paths.append(str(path))
    files = list_inputs(paths)
    splits = plan_splits(
        files, maps=maps, split_floor_bytes=1, split_bytes=100, pack=packed, pack_threshold=0
    )

    there_and_here(scratch, splits)


@given(text=st.text("ab\n", max_size=30).map(str.encode), lines=st.integers(1, 3))
def test_splits_of_so_many_lines_too(scratch, text, lines):
    (scratch / "n").write_bytes(text)

    there_and_here(scratch, nline_splits(list_inputs([str(scratch / "n")]), lines))


def test_a_whole_file_is_copied_out_of_its_blob(tmp_path):
    path = tmp_path / "raw.gz"
    path.write_bytes(gzip.compress(b"raw data"))
    ((pushed, source),) = push_splits(
        plan_splits(list_inputs([str(path)]), maps=1, split_floor_bytes=1, split_bytes=9)
    )
    assert source is not None
    (tmp_path / "blob").write_bytes(source.read(0, source.blob.size))
    os.unlink(path)

    here = fetched(pushed, str(tmp_path / "blob"))
    assert here is not None
    copy_decompressed(here.pieces[0], str(tmp_path / "copy"))

    assert (tmp_path / "copy").read_bytes() == b"raw data"


def test_a_file_that_changed_since_it_was_planned_is_not_pushed_F32(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"a\nb\n")
    splits = plan_splits(list_inputs([str(path)]), maps=1, split_floor_bytes=1, split_bytes=9)
    path.write_bytes(b"a\nb\nc\n")

    with pytest.raises(InputVanished, match="changed after the job was planned"):
        list(push_splits(splits))


def test_a_split_without_a_file_needs_no_blob():
    assert list(push_splits((Split(()),))) == [(Split(()), None)]
