"""Make one archive of wheels, of this checkout and all that it needs, for hosts that reach no package index.

    python scripts/wheelhouse.py --python 3.12 --machine x86_64

prints the archive's path. It is kept in $XDG_CACHE_HOME/zmqmr, named after a digest of the sources, so that
the same checkout is built once. With --thin it has what no index has, and pip, alone: hosts get the rest from
an index of theirs, in the versions that constraints.txt in both archives names. --with adds what jobs import.
"""

import argparse
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("zmqmr", "build_support", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
# glibc 2.5 to 2.35: the hosts run Debian 12, Ubuntu 22.04 or later.
GLIBC = range(5, 36)
_OURS = ("pip", "zmqmr")  # what hosts get from nobody else


class BuildFailed(Exception):
    """pip could not build or find a wheel."""


def digest(python: str, machine: str, packages: list[str]) -> str:
    """Names what the archive holds: the sources, the packages of jobs, and the kind of host."""
    sums = hashlib.sha256(" ".join([python, machine, *packages]).encode() + Path(__file__).read_bytes())
    for name in SOURCES:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                sums.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return sums.hexdigest()[:16]


def pip(*arguments: str) -> None:
    """Run pip quietly; BuildFailed with its last word when it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise BuildFailed((errors or done.stderr.splitlines() or ["pip failed"])[-1])


def requirements_of(wheel: Path, python: str, machine: str) -> list[str]:
    """What a wheel needs on a host; pip would evaluate the markers for the Python that runs here."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    host = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    host |= {"platform_machine": machine, "extra": ""}
    needed = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    return [
        f"{each.name}{each.specifier}" for each in needed if each.marker is None or each.marker.evaluate(host)
    ]


def copy_of_sources(folder: Path) -> Path:
    """Where a build may leave what it leaves."""
    folder.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    return folder


def build(python: str, machine: str, packages: list[str], path: Path) -> None:
    """Write the archive to `path`, and the thin one beside it."""
    with tempfile.TemporaryDirectory() as folder:
        pip("wheel", "--no-deps", "--wheel-dir", folder, str(copy_of_sources(Path(folder) / "sources")))
        (wheel,) = Path(folder).glob("zmqmr-*.whl")
        platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBC]
        platforms += [f"--platform=manylinux{year}_{machine}" for year in (2014, 2010, 1)]
        host = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms]
        needed = [*requirements_of(wheel, python, machine), *packages]
        pip("download", "--dest", folder, *host, "pip", *needed)
        wheels = sorted(Path(folder).glob("*.whl"))
        pack(wheels, path, thin=False)
        pack(wheels, thin_of(path), thin=True)


def thin_of(path: Path) -> Path:
    """The path of the thin archive beside the whole one."""
    return path.with_suffix(".thin.tar")


def pack(wheels: list[Path], path: Path, thin: bool) -> None:
    """Write an archive of wheels, or of those that an index need not have, and their versions."""
    versions = [wheel.name.split("-")[:2] for wheel in wheels]
    constraints = "".join(f"{name}=={version}\n" for name, version in versions if name not in _OURS).encode()
    part = path.with_suffix(f".part{os.getpid()}")
    with tarfile.open(part, "w") as archive:
        entry = tarfile.TarInfo("constraints.txt")
        entry.size = len(constraints)
        archive.addfile(entry, io.BytesIO(constraints))
        for wheel, (name, _) in zip(wheels, versions, strict=True):
            if not thin or name in _OURS:
                archive.add(wheel, wheel.name)
    part.rename(path)


def main() -> int:
    """Print the archive's path; 1 and one line when it cannot be made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default="{}.{}".format(*sys.version_info[:2]), help="of the hosts")
    parser.add_argument("--machine", default=os.uname().machine, help="of the hosts, x86_64 or aarch64")
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        dest="packages",
        metavar="PACKAGE",
        help="name or name==version",
    )
    parser.add_argument("--thin", action="store_true", help="without what an index has")
    options = parser.parse_args()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zmqmr"
    packages = sorted(set(options.packages))
    path = cache / f"wheelhouse-{digest(options.python, options.machine, packages)}.tar"
    wanted = thin_of(path) if options.thin else path
    if not wanted.exists():
        cache.mkdir(parents=True, exist_ok=True)
        try:
            build(options.python, options.machine, packages, path)
        except BuildFailed as failure:
            print(
                f"cannot make a wheelhouse for Python {options.python} on {options.machine}: {failure}",
                file=sys.stderr,
            )
            return 1
    print(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
