"""Inputs are found, pinned and read: every line once, whole, with its offset, or an error."""

import bz2
import errno
import gzip
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from zmqmr.core.splits import plan_splits, whole
from zmqmr.data.inputs import copy_decompressed, list_inputs, nline_splits, raw_name, read_blocks
from zmqmr.errors import (
    InputError,
    InputTruncated,
    InputVanished,
    LineTooLong,
    OutOfDisk,
    SpillError,
    UsageError,
)
from zmqmr.messages import InputFile, Piece

MIB = 1024**2


def zst(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zst}
codecs = pytest.mark.parametrize("codec", COMPRESSORS)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all examples of a property."""
    return tmp_path_factory.mktemp("scratch")


def written(directory: Path, content: bytes, name: str = "input") -> InputFile:
    path = directory / name
    path.write_bytes(content)
    return list_inputs([str(path)])[0]


def read(piece: Piece, block_bytes: int = MIB, max_line_bytes: int = MIB) -> list[tuple[int, bytes]]:
    return list(read_blocks(piece, block_bytes=block_bytes, max_line_bytes=max_line_bytes))


def content_of(file: InputFile, block_bytes: int = MIB) -> bytes:
    return b"".join(block for _, block in read(whole(file), block_bytes))


# Few different bytes, many of them newlines, so that boundaries meet in every way.
texts = st.one_of(
    st.lists(st.sampled_from([b"\n", b"\r\n", b"\0", b"a", b"\xff\xfe", b"key\tvalue"]), max_size=40).map(
        b"".join
    ),
    st.binary(max_size=300),
)


# --- lines -----------------------------------------------------------------------------------


@given(content=texts, split_bytes=st.integers(1, 320), block_bytes=st.integers(1, 64) | st.just(MIB))
def test_every_line_is_read_once_and_whole_however_it_is_cut(
    scratch: Path, content: bytes, split_bytes: int, block_bytes: int
) -> None:
    file = written(scratch, content)
    splits = plan_splits([file], maps=None, split_floor_bytes=split_bytes, split_bytes=split_bytes)
    lines: list[bytes] = []
    for split in splits:
        (piece,) = split.pieces
        mine: list[tuple[int, bytes]] = []
        for offset, block in read(piece, block_bytes):
            assert block
            assert content[offset : offset + len(block)] == block
            assert block.endswith(b"\n") or offset + len(block) == len(content)
            for line in io.BytesIO(block):
                mine.append((offset, line))
                offset += len(line)
        assert all(piece.start <= offset < piece.start + piece.length for offset, _ in mine)
        lines.extend(line for _, line in mine)
    assert lines == list(io.BytesIO(content))


@given(content=texts, split_bytes=st.integers(1, 20))
def test_pieces_of_one_byte_upwards_cover_the_file(scratch: Path, content: bytes, split_bytes: int) -> None:
    file = written(scratch, content)
    pieces = [
        Piece(file, start, min(split_bytes, len(content) - start))
        for start in range(0, len(content), split_bytes)
    ]
    for block_bytes in (1, 2, 7, 4096):
        assert b"".join(block for piece in pieces for _, block in read(piece, block_bytes)) == content


def test_a_block_holds_about_block_bytes(tmp_path: Path) -> None:
    line = b"x" * 99 + b"\n"
    for name, data in [("plain", line * 1000), ("a.gz", gzip.compress(line * 1000))]:
        blocks = read(whole(written(tmp_path, data, name)), 1000)
        assert len(blocks) == 100
        assert max(len(block) for _, block in blocks) == 1000


@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    cap=st.integers(1, 25),
    block_bytes=st.integers(1, 64),
    codec=st.sampled_from(["", "gz"]),
)
def test_a_line_over_the_cap_is_named_by_path_and_offset_and_no_other(
    scratch: Path, lengths: list[int], cap: int, block_bytes: int, codec: str
) -> None:
    lines = [b"x" * length for length in lengths]
    content = b"\n".join(lines)
    name, data = ("in.gz", gzip.compress(content)) if codec else ("in", content)
    file = written(scratch, data, name)
    long = next((i for i, line in enumerate(lines) if len(line) > cap), None)
    if long is None:
        assert b"".join(block for _, block in read(whole(file), block_bytes, cap)) == content
        return
    with pytest.raises(LineTooLong, match="ZMQMR_MAX_LINE_BYTES") as caught:
        read(whole(file), block_bytes, cap)
    assert caught.value.path == file.path
    assert caught.value.offset == sum(length + 1 for length in lengths[:long])


def test_a_piece_inside_a_long_line_of_another_reads_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, b"x" * 1000 + b"\nend\n")
    assert read(Piece(file, 100, 100), block_bytes=7, max_line_bytes=50) == []


@given(content=texts, lines_per_map=st.integers(1, 12))
def test_nline_splits_hold_n_lines_each(scratch: Path, content: bytes, lines_per_map: int) -> None:
    file = written(scratch, content)
    expected = list(io.BytesIO(content))
    splits = nline_splits([file, file], lines_per_map)
    assert splits[: len(splits) // 2] == splits[len(splits) // 2 :]
    got = [b"".join(block for _, block in read(split.pieces[0])) for split in splits[: len(splits) // 2]]
    starts = range(0, max(1, len(expected)), lines_per_map)
    assert got == [b"".join(expected[i : i + lines_per_map]) for i in starts]


def test_nline_splits_find_lines_across_reads(tmp_path: Path) -> None:
    content = b"".join(b"%d" % i * (i % 50) + b"\n" for i in range(20_000))
    splits = nline_splits([written(tmp_path, content)], 777)
    sizes = [sum(block.count(b"\n") for _, block in read(split.pieces[0])) for split in splits]
    assert sizes == [777] * (20_000 // 777) + [20_000 % 777]


def test_nline_splits_keep_a_compressed_file_whole(tmp_path: Path) -> None:
    file = written(tmp_path, gzip.compress(b"1\n2\n3\n"), "in.gz")
    assert [split.pieces for split in nline_splits([file], 1)] == [(whole(file),)]


def test_nline_splits_refuse_too_many_tasks_and_no_lines(tmp_path: Path) -> None:
    file = written(tmp_path, b"\n" * 10)
    with pytest.raises(UsageError, match="linespermap to a larger"):
        nline_splits([file], 1, max_splits=9)
    with pytest.raises(UsageError, match="linespermap to 1 or more"):
        nline_splits([file], 0)


# --- compressed ------------------------------------------------------------------------------


@given(
    members=st.lists(texts, max_size=4), codec=st.sampled_from(sorted(COMPRESSORS)), block=st.integers(1, 99)
)
def test_all_members_are_read_with_right_offsets(
    scratch: Path, members: list[bytes], codec: str, block: int
) -> None:
    file = written(scratch, b"".join(map(COMPRESSORS[codec], members)), f"in.{codec}")
    content = b"".join(members)
    got = read(whole(file), block)
    assert b"".join(part for _, part in got) == content
    assert all(content[offset : offset + len(part)] == part for offset, part in got)
    assert all(part.endswith(b"\n") for _, part in got[:-1])


@codecs
def test_large_and_very_compressible_content_is_read_whole(tmp_path: Path, codec: str) -> None:
    content = b"".join(b"%d\n" % (i * i) for i in range(200_000)) + b"\n" * 3_000_000
    file = written(tmp_path, COMPRESSORS[codec](content) * 2, f"in.{codec}")
    assert content_of(file) == content * 2


CONTENT = b"".join(b"line %d\n" % i for i in range(20))


@codecs
def test_a_file_cut_at_any_byte_is_an_error_and_never_less(tmp_path: Path, codec: str) -> None:
    first, second = (COMPRESSORS[codec](half) for half in (CONTENT[:70], CONTENT[70:]))
    whole_ones = {0: b"", len(first): CONTENT[:70]}  # cut between members: nothing can tell
    for length in range(len(first + second)):
        file = written(tmp_path, (first + second)[:length], f"in.{codec}")
        if length in whole_ones:
            assert content_of(file) == whole_ones[length]
            continue
        with pytest.raises(InputTruncated, match="copy it again") as caught:
            content_of(file)
        assert caught.value.path == file.path
        assert caught.value.offset is not None


@codecs
@pytest.mark.parametrize("mask", [0x01, 0x10, 0x80, 0xFF])
def test_a_flipped_byte_is_an_error_or_changes_nothing(tmp_path: Path, codec: str, mask: int) -> None:
    good = COMPRESSORS[codec](CONTENT[:70]) + COMPRESSORS[codec](CONTENT[70:])
    errors = 0
    for at in range(len(good)):
        file = written(tmp_path, good[:at] + bytes([good[at] ^ mask]) + good[at + 1 :], f"in.{codec}")
        try:
            assert content_of(file) == CONTENT
        except InputTruncated:
            errors += 1
    assert errors > len(good) // 2


@codecs
def test_bytes_after_a_member_are_an_error_unless_zero(tmp_path: Path, codec: str) -> None:
    good = COMPRESSORS[codec](CONTENT)
    assert content_of(written(tmp_path, good + bytes(100), f"in.{codec}")) == CONTENT
    assert content_of(written(tmp_path, good + bytes(100) + good, f"in.{codec}")) == CONTENT * 2
    for garbage in (b"x", b"garbage that is longer", bytes(10) + b"x", bytes(300_000) + b"garbage"):
        with pytest.raises(InputTruncated):
            content_of(written(tmp_path, good + garbage, f"in.{codec}"))


@codecs
def test_plain_text_with_a_compressed_name_is_an_error(tmp_path: Path, codec: str) -> None:
    with pytest.raises(InputTruncated, match="wrong extension"):
        content_of(written(tmp_path, CONTENT, f"in.{codec}"))


@codecs
def test_a_compressed_file_of_no_bytes_holds_nothing(tmp_path: Path, codec: str) -> None:
    assert content_of(written(tmp_path, b"", f"in.{codec}")) == b""


def test_zst_skippable_and_empty_frames_are_passed_over(tmp_path: Path) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (600).to_bytes(4, "little") + bytes(600)
    data = skippable + zst(b"a\n") + zst(b"") + skippable + zst(b"b\n") + skippable
    assert content_of(written(tmp_path, data, "in.zst")) == b"a\nb\n"


# --- changes and failures --------------------------------------------------------------------


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, CONTENT)
    os.unlink(file.path)
    with pytest.raises(InputVanished, match="is gone") as caught:
        content_of(file)
    assert caught.value.path == file.path


def test_a_file_of_another_size_or_time_or_kind_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, CONTENT)
    os.utime(file.path, ns=(file.mtime_ns + 1, file.mtime_ns + 1))
    with pytest.raises(InputVanished, match="modification time"):
        content_of(file)
    (tmp_path / "input").write_bytes(CONTENT + b"x")
    with pytest.raises(InputVanished, match=f"its size was {len(CONTENT)} bytes and is {len(CONTENT) + 1}"):
        content_of(file)
    os.unlink(file.path)
    os.mkfifo(file.path)
    with pytest.raises(InputVanished, match="no longer a regular file"):
        content_of(file)
    os.unlink(file.path)
    os.mkdir(file.path)
    with pytest.raises(InputVanished, match="no longer a regular file"):
        content_of(file)


@pytest.mark.parametrize("change", [lambda f: f.write(b"more\n"), lambda f: f.truncate(20)])
@pytest.mark.parametrize("name", ["in", "in.gz"])
def test_a_change_while_reading_is_refused(
    tmp_path: Path, name: str, change: Callable[[io.BufferedIOBase], object]
) -> None:
    file = written(tmp_path, CONTENT if name == "in" else gzip.compress(CONTENT), name)
    blocks = read_blocks(whole(file), block_bytes=10, max_line_bytes=100)
    next(blocks)
    with open(file.path, "r+b") as changed:
        changed.seek(0, os.SEEK_END)
        change(changed)
    with pytest.raises(InputVanished, match="changed after the job was planned"):
        list(blocks)


def test_a_read_error_names_path_and_offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, CONTENT)
    real = os.pread

    def failing(descriptor: int, size: int, offset: int) -> bytes:
        if offset >= 40:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", failing)
    with pytest.raises(InputError, match="at byte 40: Input/output error") as caught:
        content_of(file, 20)
    assert (caught.value.path, caught.value.offset) == (file.path, 40)


# --- finding ---------------------------------------------------------------------------------


def test_arguments_keep_their_order_and_the_files_of_one_are_sorted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ["z", "dir/b.gz", "dir/a.bz2", "dir/sub/c.zst", "dir/.hidden", "g2", "g1"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    monkeypatch.chdir(tmp_path)
    files = list_inputs(["z", "dir", "g*", f"file://{tmp_path}/g1", "./z"])
    assert [(os.path.relpath(file.path, tmp_path), file.codec) for file in files] == [
        ("z", ""),
        ("dir/.hidden", ""),
        ("dir/a.bz2", "bz2"),
        ("dir/b.gz", "gz"),
        ("dir/sub/c.zst", "zst"),
        ("g1", ""),
        ("g2", ""),
        ("g1", ""),
        ("z", ""),
    ]
    assert all(os.path.isabs(file.path) for file in files)
    status = os.stat("z")
    assert files[0] == files[-1] == InputFile(str(tmp_path / "z"), 5, status.st_mtime_ns)


def test_a_parent_of_a_symbolic_link_is_that_of_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real/sub").mkdir(parents=True)
    (tmp_path / "real/file").write_bytes(b"1")
    (tmp_path / "link").symlink_to(tmp_path / "real/sub")
    monkeypatch.chdir(tmp_path)
    assert os.path.samefile(list_inputs(["link/../file"])[0].path, "real/file")


def test_a_name_with_glob_characters_is_found_if_the_pattern_matches_nothing(tmp_path: Path) -> None:
    (tmp_path / "a[1]").write_bytes(b"1")
    assert [file.path for file in list_inputs([str(tmp_path / "a[1]")])] == [str(tmp_path / "a[1]")]


def test_links_to_directories_are_followed_each_time(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("real")
    assert [os.path.relpath(f.path, tmp_path) for f in list_inputs([str(tmp_path)])] == [
        "link/file",
        "real/file",
    ]


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/loop").symlink_to("../..")
    with pytest.raises(InputError, match="Remove the link") as caught:
        list_inputs([str(tmp_path)])
    assert caught.value.path.endswith("loop")


def _make_unusable(directory: Path) -> None:
    (directory / "empty/sub").mkdir(parents=True)
    (directory / "broken").symlink_to("nowhere")
    os.mkfifo(directory / "fifo")
    (directory / "with_fifo").mkdir()
    os.mkfifo(directory / "with_fifo/fifo")
    (directory / os.fsdecode(b"bad\xff")).write_bytes(b"1")
    (directory / "file").write_bytes(b"1")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("{}/missing", "does not exist"),
        ("{}/file/below", "does not exist"),
        ("{}/missing*", "no file matches"),
        ("{}/broken", "symbolic link to nothing"),
        ("{}/brok*", "symbolic link to nothing"),
        ("{}/empty", "holds no files"),
        ("{}/fifo", "give `-` as the input"),
        ("{}/with_fifo", "give `-` as the input"),
        ("/dev/null", "not a regular file"),
        ("/proc/self/status", "not a regular file"),
        ("{}/bad*", "not valid UTF-8"),
        ("", "not a path"),
        ("nul\0", "not a path"),
        ("s3://bucket/key", "not a local file.*file:/// URIs, globs and directories"),
        ("hdfs:///data", "not a local file"),
        ("http://host/data", "not a local file"),
        ("file://host/data", "not a local file"),
    ],
)
def test_an_unusable_argument_is_refused_with_what_to_do(tmp_path: Path, argument: str, message: str) -> None:
    _make_unusable(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        list_inputs([argument.format(tmp_path)])
    assert bool(caught.value.path) == bool(argument)


_AS_NOBODY = """
import os, sys
from zmqmr.data import inputs
from zmqmr.errors import InputError
from zmqmr.messages import InputFile, Piece
os.chdir(sys.argv[1])
pinned = inputs.list_inputs(["secret"])[0]
os.setgroups([]); os.setgid(65534); os.setuid(65534)
piece = Piece(pinned, 0, pinned.size)
for attempt in (
    lambda: inputs.list_inputs(["secret"]),
    lambda: inputs.list_inputs(["closed"]),
    lambda: inputs.list_inputs(["closed/file"]),
    lambda: list(inputs.read_blocks(piece, block_bytes=10, max_line_bytes=10)),
):
    try:
        attempt()
    except InputError as error:
        print(error.path, str(error))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_or_directory_without_permission_is_named(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        if parent.owner() == "root" and parent.name.startswith("pytest"):
            parent.chmod(0o755)
    (tmp_path / "secret").write_bytes(b"1")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/file").write_bytes(b"1")
    (tmp_path / "closed").chmod(0o700)
    command = [sys.executable, "-c", _AS_NOBODY, str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    lines = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environ
    ).stdout.splitlines()
    expected = ["secret", "closed", "closed/file", "secret"]
    assert [line.split(" ")[0] for line in lines] == [str(tmp_path / name) for name in expected]
    assert all("ermission denied" in line for line in lines)


# --- whole files -----------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["", *COMPRESSORS])
def test_copy_decompressed_writes_the_content(tmp_path: Path, codec: str) -> None:
    data = COMPRESSORS[codec](CONTENT) * 2 if codec else CONTENT * 2
    file = written(tmp_path, data, f"in.{codec}" if codec else "in")
    copy_decompressed(whole(file), str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == CONTENT * 2


def test_copy_decompressed_leaves_nothing_of_a_damaged_file(tmp_path: Path) -> None:
    file = written(tmp_path, gzip.compress(CONTENT)[:-1], "in.gz")
    with pytest.raises(InputTruncated):
        copy_decompressed(whole(file), str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_copy_decompressed_tells_a_bad_destination_from_a_bad_input(tmp_path: Path) -> None:
    file = written(tmp_path, gzip.compress(CONTENT), "in.gz")
    with pytest.raises(SpillError, match="cannot write"):
        copy_decompressed(whole(file), str(tmp_path / "missing/copy"))
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OutOfDisk) as caught:
        copy_decompressed(whole(file), str(tmp_path / "full"))
    assert caught.value.path == str(tmp_path / "full")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b.txt.gz", "b.txt"),
        ("c.bz2", "c"),
        ("/d.zst", "d"),
        ("/e.gz.txt", "e.gz.txt"),
        ("/.gz", ".gz"),
        ("f", "f"),
    ],
)
def test_raw_name_drops_the_extension_of_the_compression(path: str, name: str) -> None:
    assert raw_name(path) == name
