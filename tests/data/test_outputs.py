"""The output directory: only a new or an empty one, all of the output or nothing of it."""

import bz2
import gzip
import os
from pathlib import Path

import pytest

from zmqmr.data.outputs import BLOCK_BYTES, OutputDirectory, local_path, parts, stream
from zmqmr.errors import InputTruncated, SpillError, UsageError


def test_a_new_directory_is_made_and_after_success_holds_the_parts_and_the_mark(tmp_path: Path):
    output = OutputDirectory(str(tmp_path / "a" / "b"))
    output.claim()
    (tmp_path / "a/b/part-00000").write_bytes(b"x")
    (tmp_path / "a/b/_temporary/attempt").mkdir(parents=True)
    output.commit()
    assert sorted(os.listdir(tmp_path / "a/b")) == ["_SUCCESS", "part-00000"]
    assert (tmp_path / "a/b/_SUCCESS").read_bytes() == b""


def test_a_failure_leaves_nothing_that_was_not_there(tmp_path: Path):
    output = OutputDirectory(str(tmp_path / "a" / "b"))
    output.claim()
    (tmp_path / "a/b/_temporary").mkdir()
    (tmp_path / "a/b/_temporary/x").write_bytes(b"x")
    (tmp_path / "a/b/part-00000").write_bytes(b"x")
    output.discard()
    assert os.listdir(tmp_path) == []


def test_a_failure_empties_a_directory_that_was_there_and_keeps_it(tmp_path: Path):
    (tmp_path / "out").mkdir(mode=0o750)
    before = (tmp_path / "out").stat()
    output = OutputDirectory(str(tmp_path / "out"))
    output.claim()
    (tmp_path / "out/part-00000").write_bytes(b"x")
    output.discard()
    after = (tmp_path / "out").stat()
    assert os.listdir(tmp_path / "out") == []
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


def test_a_parent_that_somebody_else_uses_meanwhile_is_kept(tmp_path: Path):
    output = OutputDirectory(str(tmp_path / "a" / "b"))
    output.claim()
    (tmp_path / "a/other").write_bytes(b"x")
    output.discard()
    assert os.listdir(tmp_path) == ["a"]
    assert os.listdir(tmp_path / "a") == ["other"]


@pytest.mark.parametrize("name", ["part-00000", ".hidden", "_SUCCESS"])
def test_a_directory_that_holds_anything_is_refused_and_left_alone(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=r"not empty.*another --output-dir"):
        OutputDirectory(str(tmp_path)).claim()
    assert os.listdir(tmp_path) == [name]


def test_two_jobs_cannot_have_the_same_directory(tmp_path: Path):
    first, second = OutputDirectory(str(tmp_path)), OutputDirectory(str(tmp_path), "--step-output-dir")
    first.claim()
    with pytest.raises(UsageError, match=r"another job is writing.*--step-output-dir"):
        second.claim()
    first.discard()
    second.claim()
    second.discard()


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"x")
    for path in ("file", "file/below", "n" * 300):
        with pytest.raises(UsageError, match="cannot write to the output directory"):
            OutputDirectory(str(tmp_path / path)).claim()
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_that_cannot_be_written_is_refused_before_the_job_runs():
    with pytest.raises(UsageError, match="cannot write to the output directory /proc"):
        OutputDirectory("/proc/self/fdinfo/new").claim()


def test_success_that_cannot_be_written_is_an_error(tmp_path: Path):
    output = OutputDirectory(str(tmp_path / "out"))
    output.claim()
    os.rmdir(tmp_path / "out")
    with pytest.raises(SpillError, match="cannot complete"):
        output.commit()


def test_the_steps_directories_are_marked_before_the_output(tmp_path: Path):
    output = OutputDirectory(str(tmp_path / "out"))
    output.claim()
    with pytest.raises(SpillError):
        output.commit([str(tmp_path / "missing")])
    assert os.listdir(tmp_path / "out") == []


def test_parts_come_in_the_order_of_their_numbers(tmp_path: Path):
    for name in ("part-100000", "part-99999", "part-00002.gz", "_SUCCESS", ".part-00000", "part-x", "note"):
        (tmp_path / name).write_bytes(b"")
    assert [Path(path).name for path in parts(str(tmp_path))] == [
        "part-00002.gz",
        "part-99999",
        "part-100000",
    ]


def test_parts_stream_in_bounded_blocks_decompressed_with_an_empty_block_between_files(tmp_path: Path):
    big = os.urandom(BLOCK_BYTES + 5)
    (tmp_path / "part-00000").write_bytes(big)
    (tmp_path / "part-00001").write_bytes(b"")
    (tmp_path / "part-00002.gz").write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    (tmp_path / "part-00003.bz2").write_bytes(bz2.compress(b"three\n") + bz2.compress(b"four\n"))
    blocks = list(stream(parts(str(tmp_path))))
    assert max(map(len, blocks)) == BLOCK_BYTES
    assert blocks == [big[:BLOCK_BYTES], big[BLOCK_BYTES:], b"", b"", b"one\ntwo\n", b"", b"three\nfour\n"]


def test_a_damaged_part_is_an_error_and_not_a_shorter_output(tmp_path: Path):
    (tmp_path / "part-00000.gz").write_bytes(gzip.compress(b"one\n")[:-4])
    with pytest.raises(InputTruncated, match=r"part-00000\.gz"):
        list(stream(parts(str(tmp_path))))


def test_file_uris_are_paths_and_other_uris_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert local_path("file:///a/b%20c") == "/a/b c"
    assert local_path("out") == str(tmp_path / "out")
    assert local_path("a:b") == str(tmp_path / "a:b")
    for uri in ("s3://bucket/out", "hdfs:///out", "file://host/out"):
        with pytest.raises(UsageError, match=r"file:///|file://"):
            local_path(uri)
