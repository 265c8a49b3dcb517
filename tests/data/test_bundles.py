"""The bundle: the same bytes for the same contents, and nothing hostile comes out of one."""

import bz2
import gzip
import hashlib
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zmqmr.data.bundles import pack, unpack
from zmqmr.errors import Corrupt, UsageError

NAMES = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="/\0"), min_size=1, max_size=30
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where a bundle is unpacked; what is beside it must stay as it is."""
    directory = tmp_path / "outer" / "work"
    directory.mkdir(parents=True)
    return directory


def written(path: Path, data: bytes = b"data", mode: int = 0o644) -> str:
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def tar_with(*members: tuple[str, bytes | str | None, bytes]) -> bytes:
    """A tar file of (name, content or link target, type)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content, kind in members:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            entry.mode = 0o777 if kind == tarfile.DIRTYPE else 0o644
            if isinstance(content, str):
                entry.linkname = content
            data = content if isinstance(content, bytes) else b""
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zip_with(*members: tuple[str, bytes, int]) -> bytes:
    """A zip file of (name, content, mode)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in members:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return buffer.getvalue()


def round_trip(tmp_path: Path, work: Path, archive: bytes, **caps: int) -> None:
    """Pack `archive` under the name `a`, then unpack it into `work`."""
    path = written(tmp_path / "archive", archive)
    bundle, digest = pack({}, {"a": path}, str(tmp_path))
    unpack(bundle, digest, str(work), **caps)


def tree(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.dictionaries(NAMES, st.binary(max_size=3000), max_size=4))
def test_files_come_out_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes]):
    directory = tmp_path_factory.mktemp("files")
    (directory / "work").mkdir()
    files = {name: written(directory / f"f{i}", data) for i, (name, data) in enumerate(contents.items())}
    bundle, digest = pack(files, {}, str(directory))
    unpack(bundle, digest, str(directory / "work"))
    assert {path.name: path.read_bytes() for path in (directory / "work").iterdir()} == contents


def test_the_digest_depends_on_contents_names_and_exec_bits_only(tmp_path: Path):
    one, two = written(tmp_path / "one"), written(tmp_path / "two", mode=0o600)
    os.utime(two, (1, 1))
    (tmp_path / "x").mkdir()
    first = pack({"a": one, "b": one}, {}, str(tmp_path))
    assert pack({"b": two, "a": two}, {}, str(tmp_path / "x"))[1] == first[1]
    assert first[1] == hashlib.sha256(Path(first[0]).read_bytes()).hexdigest() == Path(first[0]).stem
    runnable = written(tmp_path / "run", mode=0o755)
    others = [
        pack(files, {}, str(tmp_path))[1]
        for files in ({"a": one}, {"a": one, "c": one}, {"a": one, "b": runnable})
    ]
    assert len({first[1], *others}) == 4


def test_no_other_user_can_read_the_bundle(tmp_path: Path):
    bundle, _ = pack({"a": written(tmp_path / "a")}, {}, str(tmp_path))
    assert stat.S_IMODE(os.stat(bundle).st_mode) == 0o600


def test_files_can_be_run_by_their_owner_and_changed_by_nobody_else(tmp_path: Path, work: Path):
    files = {"plain": written(tmp_path / "p", mode=0o666), "tool": written(tmp_path / "t", mode=0o4777)}
    bundle, digest = pack(files, {}, str(tmp_path))
    unpack(bundle, digest, str(work))
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in work.iterdir()} == {"plain": 0o744, "tool": 0o755}


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress])
def test_a_tar_archive_becomes_a_directory(tmp_path: Path, work: Path, compress: Callable[[bytes], bytes]):
    data = tar_with(
        ("./", None, tarfile.DIRTYPE),
        ("./sub/deep/file", b"one", tarfile.REGTYPE),
        ("same", "sub/deep/file", tarfile.LNKTYPE),
        ("link", "sub/../sub/deep", tarfile.SYMTYPE),
        ("twice", b"old", tarfile.REGTYPE),
        ("twice", b"new", tarfile.REGTYPE),
    )
    round_trip(tmp_path, work, compress(data))
    assert tree(work / "a") == {"sub", "sub/deep", "sub/deep/file", "same", "link", "twice"}
    assert (work / "a/link/file").read_bytes() == (work / "a/same").read_bytes() == b"one"
    assert (work / "a/twice").read_bytes() == b"new"


def test_a_zip_archive_becomes_a_directory(tmp_path: Path, work: Path):
    data = zip_with(
        ("sub/", b"", 0o040755),
        ("sub/file", b"one", 0o100755),
        ("no_mode", b"two", 0),
        ("link", b"sub/file", stat.S_IFLNK | 0o777),
    )
    round_trip(tmp_path, work, data)
    assert tree(work / "a") == {"sub", "sub/file", "no_mode", "link"}
    assert (work / "a/link").read_bytes() == b"one"
    assert os.access(work / "a/sub/file", os.X_OK)


HOSTILE = {
    "tar: parent": tar_with(("../evil", b"x", tarfile.REGTYPE)),
    "tar: parent inside": tar_with(("sub/../../evil", b"x", tarfile.REGTYPE)),
    "tar: absolute": tar_with(("/tmp/evil-zmqmr", b"x", tarfile.REGTYPE)),
    "tar: directory outside": tar_with(("../evil", None, tarfile.DIRTYPE)),
    "tar: link outside": tar_with(("evil", "../..", tarfile.SYMTYPE)),
    "tar: absolute link": tar_with(("evil", "/etc", tarfile.SYMTYPE)),
    "tar: to a sibling with the same start": tar_with(("evil", "../a2", tarfile.SYMTYPE)),
    "tar: write through a link": tar_with(("l", "..", tarfile.SYMTYPE), ("l/evil", b"x", tarfile.REGTYPE)),
    "tar: links that add up": tar_with(
        ("d/e/f", b"x", tarfile.REGTYPE),
        ("s", "d/e", tarfile.SYMTYPE),
        ("d/e/evil", "../../..", tarfile.SYMTYPE),
    ),
    "tar: through another link": tar_with(
        ("top", ".", tarfile.SYMTYPE), ("evil", "top/../..", tarfile.SYMTYPE)
    ),
    "tar: later link changes an earlier one": tar_with(
        ("evil", "q/r/../../..", tarfile.SYMTYPE), ("q", "s", tarfile.SYMTYPE), ("s/r", ".", tarfile.SYMTYPE)
    ),
    "tar: hard link outside": tar_with(("evil", "../../archive", tarfile.LNKTYPE)),
    "tar: absolute hard link": tar_with(("evil", "/etc/passwd", tarfile.LNKTYPE)),
    "tar: hard link to a link": tar_with(
        ("l", "/etc/passwd", tarfile.SYMTYPE), ("evil", "l", tarfile.LNKTYPE)
    ),
    "tar: device": tar_with(("evil", None, tarfile.CHRTYPE)),
    "tar: block device": tar_with(("evil", None, tarfile.BLKTYPE)),
    "tar: pipe": tar_with(("evil", None, tarfile.FIFOTYPE)),
    "tar: file over its own root": tar_with((".", b"x", tarfile.REGTYPE)),
    "tar: below a file": tar_with(("f", b"x", tarfile.REGTYPE), ("f/evil", b"x", tarfile.REGTYPE)),
    "tar: file over directory": tar_with(("d/x", b"x", tarfile.REGTYPE), ("d", b"x", tarfile.REGTYPE)),
    "tar: link over file": tar_with(("d", b"x", tarfile.REGTYPE), ("d", "e", tarfile.SYMTYPE)),
    "tar: name too long": tar_with(("n" * 300, b"x", tarfile.REGTYPE)),
    "zip: parent": zip_with(("../evil", b"x", 0o100644)),
    "zip: absolute": zip_with(("/tmp/evil-zmqmr", b"x", 0o100644)),
    "zip: link outside": zip_with(("evil", b"../..", stat.S_IFLNK | 0o777)),
    "zip: write through a link": zip_with(("l", b"..", stat.S_IFLNK | 0o777), ("l/evil", b"x", 0o100644)),
    "zip: pipe": zip_with(("evil", b"", stat.S_IFIFO | 0o644)),
    "gz: cut": gzip.compress(tar_with(("f", os.urandom(9000), tarfile.REGTYPE)))[:-2000],
    "gz: damaged": gzip.compress(tar_with(("f", b"x" * 9000, tarfile.REGTYPE)))[:-8] + b"\0" * 8,
    "bz2: cut": bz2.compress(tar_with(("f", os.urandom(9000), tarfile.REGTYPE)))[:-2000],
    "zip: cut": zip_with(("f", os.urandom(9000), 0o100644))[:5000],
    "tar: cut": tar_with(("f", b"x" * 90000, tarfile.REGTYPE))[:50000],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_t8_a_hostile_or_damaged_archive_is_refused_and_nothing_is_written_outside(
    tmp_path: Path, work: Path, name: str
):
    beside = work.parent / "kept"
    beside.write_bytes(b"kept")
    with pytest.raises(UsageError, match=r"archive"):
        round_trip(tmp_path, work, HOSTILE[name])
    assert sorted(os.listdir(work.parent)) == ["kept", "work"]
    assert os.listdir(work) in ([], ["a"])
    assert beside.read_bytes() == b"kept"
    assert not os.path.exists("/tmp/evil-zmqmr")
    for path in work.rglob("*"):
        assert path.resolve().is_relative_to(work.resolve())


def test_t8_a_bomb_stops_at_the_cap_on_bytes(tmp_path: Path, work: Path):
    bomb = zip_with(("zeros", b"\0" * 50_000_000, 0o100644))
    assert len(bomb) < 100_000
    with pytest.raises(UsageError, match="more than 3000000 bytes"):
        round_trip(tmp_path, work, bomb, max_bytes=3_000_000)
    assert sum(path.stat().st_size for path in work.rglob("*")) < 5_000_000


def test_t8_the_cap_on_bytes_counts_all_archives_together(tmp_path: Path, work: Path):
    path = written(tmp_path / "x.tar", tar_with(("f", b"x" * 600, tarfile.REGTYPE)))
    bundle, digest = pack({}, {"a": path, "b": path}, str(tmp_path))
    unpack(bundle, digest, str(work), max_bytes=1200)
    (tmp_path / "again").mkdir()
    with pytest.raises(UsageError, match="more than 1199 bytes"):
        unpack(bundle, digest, str(tmp_path / "again"), max_bytes=1199)


def test_t8_an_archive_of_very_many_entries_stops_at_the_cap(tmp_path: Path, work: Path):
    many = tar_with(*((f"f{i}", b"", tarfile.REGTYPE) for i in range(100)))
    with pytest.raises(UsageError, match="more than 50 files"):
        round_trip(tmp_path, work, many, max_entries=50)
    assert len(list(work.rglob("*"))) < 60


def test_a_changed_bundle_is_refused_before_anything_is_unpacked(tmp_path: Path, work: Path):
    bundle, digest = pack({"a": written(tmp_path / "f", b"x" * 5000)}, {}, str(tmp_path))
    data = bytearray(Path(bundle).read_bytes())
    data[2000] ^= 1
    Path(bundle).write_bytes(data)
    with pytest.raises(Corrupt, match="sha256"):
        unpack(bundle, digest, str(work))
    assert os.listdir(work) == []


def test_a_bundle_that_no_client_packed_is_refused(tmp_path: Path, work: Path):
    for data in (
        tar_with(("evil", b"x", tarfile.REGTYPE)),
        tar_with(("file/../evil", b"x", tarfile.REGTYPE)),
    ):
        bundle = written(tmp_path / "bundle", data)
        with pytest.raises(UsageError, match="no zmqmr client"):
            unpack(bundle, hashlib.sha256(data).hexdigest(), str(work))
    assert os.listdir(work) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_t8_a_name_that_is_no_name_in_a_directory_is_refused(tmp_path: Path, name: str):
    with pytest.raises(UsageError, match="cannot be a name"):
        pack({name: written(tmp_path / "f")}, {}, str(tmp_path))


def test_what_cannot_be_packed_is_named(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no-such-file"):
        pack({"a": str(tmp_path / "no-such-file")}, {}, str(tmp_path))
    with pytest.raises(UsageError, match=f"{tmp_path}"):
        pack({"a": str(tmp_path)}, {}, str(tmp_path))
    with pytest.raises(UsageError, match=r"text is not a tar or zip archive"):
        pack({}, {"a": written(tmp_path / "text", b"hello\n" * 200)}, str(tmp_path))
