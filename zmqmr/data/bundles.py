"""The bundle: a job's working directory as one tar file, named after its own sha256.

The client packs; every worker checks the digest and unpacks. What is inside may come from anywhere,
so archives are unpacked by this module and never by an extractall: nothing is written outside of the
directory, and a small archive cannot fill a drive.
"""

import bz2
import errno
import gzip
import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, cast

from zmqmr.errors import Corrupt, OutOfDisk, UsageError, is_full

GIB = 1024**3
MAX_BYTES = 16 * GIB  # what one bundle may unpack to
MAX_ENTRIES = 500_000  # files, directories and links in one bundle
_BLOCK = 1024**2
_FILE, _ARCHIVE = "file/", "archive/"  # prefixes of the bundle's members
_BAD_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, ValueError)


def pack(files: Mapping[str, str], archives: Mapping[str, str], destination_dir: str) -> tuple[str, str]:
    """Pack `files` and `archives` (name in the working directory -> path) into one tar file.

    Returns its path, in `destination_dir`, and its sha256. The same contents, names and exec bits
    give the same digest. UsageError when something to pack cannot be read.
    """
    part = os.path.join(destination_dir, "bundle.part")
    digest = hashlib.sha256()
    with open(part, "wb", opener=_private) as file:
        writer = cast(IO[bytes], _HashingWriter(file, digest))
        with tarfile.open(fileobj=writer, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for prefix, named in ((_FILE, files), (_ARCHIVE, archives)):
                for name in sorted(named):
                    _add(tar, prefix, name, named[name])
    path = os.path.join(destination_dir, digest.hexdigest() + ".tar")
    os.rename(part, path)
    return path, digest.hexdigest()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _HashingWriter:
    """Writes to a file and updates a digest with the same bytes."""

    def __init__(self, file: IO[bytes], digest: "hashlib._Hash"):
        self._file = file
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)


def _add(tar: tarfile.TarFile, prefix: str, name: str, path: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise UsageError(f"{name!r} cannot be a name in the working directory; give {path} another one")
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path} is not a regular file; tasks can only be given regular files")
            if prefix == _ARCHIVE:
                _check_archive(path, file)
            entry = tarfile.TarInfo(prefix + name)
            entry.size = status.st_size
            entry.mode = 0o755 if status.st_mode & 0o100 else 0o644
            tar.addfile(entry, file)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutOfDisk("no space left to pack the job's files", path) from error
        raise UsageError(f"cannot pack {path} for the tasks: {error.strerror or error}") from error


def _check_archive(path: str, file: IO[bytes]) -> None:
    """UsageError unless `file` starts like an archive: a mistake shows before the job runs."""
    magic = file.read(6)
    file.seek(0)
    if not magic.startswith(b"PK"):
        try:
            tarfile.open(fileobj=_decompressed(file, magic), mode="r|").close()
        except (OSError, *_BAD_ARCHIVE) as error:
            raise UsageError(f"{path} is not a tar or zip archive that can be unpacked: {error}") from error
        file.seek(0)


def forget_time(archive: str) -> None:
    """Clear the time that the header of a gzip file (RFC 1952, MTIME) says it was made at: the same directory
    gives the same archive."""
    with open(archive, "r+b") as file:
        file.seek(4)
        file.write(bytes(4))


def unpack(
    bundle: str, sha256: str, directory: str, *, max_bytes: int = MAX_BYTES, max_entries: int = MAX_ENTRIES
) -> None:
    """Check the digest of `bundle`, then unpack it into `directory`, which must exist.

    Archives are unpacked into a directory of their name. Corrupt when the digest differs; UsageError
    when an archive cannot be read, would write outside of its directory, holds devices, or
    exceeds a cap; OutOfDisk when the drive is full. The caller removes what is left then.
    """
    with open(bundle, "rb") as file:
        _check_digest(file, bundle, sha256)
        budget = _Budget(max_bytes, max_entries)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    _unpack_member(tar, member, directory, budget)
        except tarfile.TarError as error:
            raise Corrupt(f"the bundle {bundle} is not a tar file: {error}", bundle) from error
        except OSError as error:
            if is_full(error):
                raise OutOfDisk(f"no space left to unpack a job in {directory}", directory) from error
            raise


def _check_digest(file: IO[bytes], bundle: str, sha256: str) -> None:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    if digest.hexdigest() != sha256:
        raise Corrupt(
            f"the bundle {bundle} was damaged: its sha256 is not {sha256}; run the job again", bundle
        )
    file.seek(0)


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: str, budget: "_Budget") -> None:
    prefix, _, name = member.name.partition("/")
    source = tar.extractfile(member)
    if source is None or prefix + "/" not in (_FILE, _ARCHIVE) or "/" in name or name in ("", ".", ".."):
        raise UsageError(f"the bundle holds {member.name!r}, which no zmqmr client packs")
    tree = _Tree(directory, "the bundle", budget)
    if prefix + "/" == _FILE:
        tree.file(name, member.mode, source)
        return
    tree.directory(name)
    inner = _Tree(os.path.join(directory, name), f"the archive {name}", budget)
    try:
        _unpack_archive(source, inner)
    except (*_BAD_ARCHIVE, RuntimeError, NotImplementedError) as error:  # the last two: zip's methods
        raise UsageError(
            f"cannot unpack the archive {name}: {error or 'it ends early'}; repair it"
        ) from error
    except OSError as error:  # a damaged gz or bz2 file too
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        raise UsageError(f"cannot unpack the archive {name}: {error}; repair it") from error


class _Budget:
    """What may still be unpacked; shared by all archives of a bundle."""

    def __init__(self, max_bytes: int, max_entries: int):
        self._bytes = self.max_bytes = max_bytes
        self._entries = self.max_entries = max_entries

    def entry(self, what: str) -> None:
        self._entries -= 1
        if self._entries < 0:
            raise UsageError(f"{what} brings the job to more than {self.max_entries} files; pack fewer")

    def data(self, size: int, what: str) -> None:
        self._bytes -= size
        if self._bytes < 0:
            raise UsageError(f"{what} unpacks to more than {self.max_bytes} bytes; pack less")


class _Tree:
    """Creates files below one directory, and nowhere else.

    Symbolic links are kept back until everything else exists, so nothing is ever written through one.
    """

    def __init__(self, root: str, what: str, budget: _Budget):
        self._root = os.path.realpath(root)
        self._what = what
        self._budget = budget
        self._links: dict[str, tuple[str, str]] = {}  # path -> name in the archive, target

    def _refuse(self, name: str, why: str) -> UsageError:
        return UsageError(f"{self._what} holds {name[:200]!r}, which {why}; remove it from there")

    def _path(self, name: str) -> str:
        """Where `name` belongs; its parent directory exists."""
        self._budget.entry(self._what)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise self._refuse(name, "would be written outside of the working directory")
        path = os.path.join(self._root, *parts)
        try:
            os.makedirs(os.path.dirname(path) if parts else path, mode=0o700, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise self._refuse(name, "is below a file") from error
        return path

    def charge(self, size: int) -> None:
        """Count `size` bytes of unpacked data."""
        self._budget.data(size, self._what)

    def directory(self, name: str) -> None:
        path = self._path(name)
        if path != self._root:
            try:
                os.makedirs(path, mode=0o700, exist_ok=True)
            except FileExistsError as error:
                raise self._refuse(name, "is both a file and a directory") from error

    def file(self, name: str, mode: int, source: IO[bytes]) -> None:
        path = self._replaceable(name)
        with open(path, "xb") as file:
            while block := source.read(_BLOCK):
                self.charge(len(block))
                file.write(block)
            # As mrjob gives tasks their files: the owner may read and run them. Others may not write.
            os.fchmod(file.fileno(), mode & 0o755 | 0o700)

    def hard_link(self, name: str, target: str) -> None:
        source = self._path(target)
        if not os.path.isfile(source):
            raise self._refuse(name, "is a hard link to something that is not a file before it")
        path = self._replaceable(name)
        if path != source:
            os.link(source, path)

    def symbolic_link(self, name: str, target: str) -> None:
        self._links[self._path(name)] = (name, target)

    def _replaceable(self, name: str) -> str:
        path = self._path(name)
        if os.path.isdir(path):
            raise self._refuse(name, "is both a file and a directory")
        if os.path.exists(path):  # a tar file may hold a name twice: the last one counts
            os.unlink(path)
        return path

    def refuse_special(self, name: str) -> None:
        raise self._refuse(name, "is a device, a pipe or another special file")

    def finish(self) -> None:
        """Create the links, then check that each one stays inside, whatever it goes through."""
        for path, (name, target) in self._links.items():
            if os.path.lexists(path):
                raise self._refuse(name, "is a link and something else as well")
            os.symlink(target, path)
        for path, (name, _) in self._links.items():
            if not (os.path.realpath(path) + "/").startswith(self._root + "/"):
                os.unlink(path)
                raise self._refuse(name, "is a link that leaves the directory")


def _unpack_archive(source: IO[bytes], tree: _Tree) -> None:
    magic = source.read(6)
    source.seek(0)
    if magic.startswith(b"PK"):
        with zipfile.ZipFile(source) as archive:
            _unpack_zip(archive, tree)
    else:
        content = _decompressed(source, magic)
        with tarfile.open(fileobj=content, mode="r|") as tar:
            _unpack_tar(tar, tree)
        while block := content.read(_BLOCK):  # to the end, where the checksum of the compressed data is
            tree.charge(len(block))
    tree.finish()


def _decompressed(source: IO[bytes], magic: bytes) -> IO[bytes]:
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=source))
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(source)
    if magic.startswith(b"\xfd7zXZ"):
        return lzma.LZMAFile(source)
    return source


def _unpack_tar(tar: tarfile.TarFile, tree: _Tree) -> None:
    for member in tar:
        if member.isdir():
            tree.directory(member.name)
        elif member.issym():
            tree.symbolic_link(member.name, member.linkname)
        elif member.islnk():
            tree.hard_link(member.name, member.linkname)
        elif member.isreg():
            tree.file(member.name, member.mode, cast(IO[bytes], tar.extractfile(member)))
        else:
            tree.refuse_special(member.name)


def _unpack_zip(archive: zipfile.ZipFile, tree: _Tree) -> None:
    for entry in archive.infolist():
        mode = entry.external_attr >> 16
        if entry.is_dir():
            tree.directory(entry.filename)
        elif stat.S_ISLNK(mode):
            with archive.open(entry) as link:
                tree.symbolic_link(entry.filename, os.fsdecode(link.read(4096)))
        elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
            with archive.open(entry) as source:
                tree.file(entry.filename, mode, source)
        else:
            tree.refuse_special(entry.filename)
