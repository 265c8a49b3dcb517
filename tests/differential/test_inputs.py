"""Every kind of input is read as stock mrjob reads it."""

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from differential.harness import SMALL, Result, run_stock, run_zmqmr

Compare = Callable[..., Result]


def _pieces(text: Path) -> list[bytes]:
    """The text in three pieces that do not end at a line's end."""
    data = text.read_bytes()
    return [data[:5_003], data[5_003:11_111], data[11_111:]]


@pytest.fixture
def folder(tmp_path: Path, text: Path) -> Path:
    """A folder with files in folders, some packed, one empty, one with no newline at its end."""
    top = tmp_path / "in"
    (top / "a" / "deeper").mkdir(parents=True)
    lines = text.read_bytes()
    (top / "one.txt").write_bytes(lines)
    (top / "empty.txt").write_bytes(b"")
    (top / "a" / "two.gz").write_bytes(gzip.compress(lines[:3000]))
    (top / "a" / "deeper" / "three.bz2").write_bytes(bz2.compress(lines[:4000]))
    (top / "a" / "deeper" / "no end.txt").write_bytes(b"no end")
    return top


def test_a_file_named_twice_is_read_twice(compare: Compare, text: Path) -> None:
    compare("word_count", inputs=[text, text])


def test_a_folder_is_read_with_all_below_it(compare: Compare, folder: Path) -> None:
    compare("word_count", inputs=[folder])


def test_a_pattern_names_files(compare: Compare, folder: Path) -> None:
    compare("word_count", inputs=[f"{folder}/*.txt", f"{folder}/a/t??.g[xyz]"])


def test_a_file_uri(compare: Compare, text: Path) -> None:
    compare("word_count", inputs=[f"file://{text}"])


def test_standard_input_when_no_input_is_named(compare: Compare, text: Path) -> None:
    compare("word_count", stdin=text.read_bytes())


def test_standard_input_beside_files(compare: Compare, text: Path) -> None:
    compare("word_count", inputs=["-", text], stdin=b"words from standard input\nand more")


def test_a_relative_path(tmp_path: Path, text: Path) -> None:
    ours = run_zmqmr("word_count", [], [text.name], environ=SMALL, cwd=text.parent)
    stock = run_stock("word_count", inputs=[text])
    assert ours.rc == 0, ours.stderr
    assert ours.lines == stock.lines


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("zst", zstandard.compress)]
)
def test_what_stock_mrjob_cannot_read_is_read_as_its_content(
    text: Path, tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    """Stock mrjob breaks a line at the end of a gz member, fails after a bz2 stream and has no zst:
    it is asked about the content."""
    path = tmp_path / f"many.{suffix}"
    path.write_bytes(b"".join(compress(piece) for piece in _pieces(text)))
    ours = run_zmqmr("word_count", [], [path], tmp_path / "out", environ=SMALL)
    stock = run_stock("word_count", inputs=[text])
    assert ours.rc == 0, ours.stderr
    assert ours.lines == stock.lines


def test_names_with_odd_characters(compare: Compare, tmp_path: Path) -> None:
    names = ["with space", "qu'ote\"s", "$(touch x)", "-dash", "caf\u00e9", "semi;colon", "per%20cent"]
    paths = []
    for name in names:
        paths.append(tmp_path / name)
        paths[-1].write_text(f"in {name}\n")
    compare("settings_of_task", inputs=paths)


def test_one_file_in_many_pieces_of_a_hundred_bytes(compare: Compare, text: Path) -> None:
    tiny = SMALL | {"ZMQMR_SPLIT_BYTES": "100", "ZMQMR_SPLIT_FLOOR_BYTES": "1", "ZMQMR_BLOCK_BYTES": "64"}
    short = text.parent / "short.txt"
    short.write_bytes(text.read_bytes()[:2500])
    compare("word_count", inputs=[short], settings=tiny)
