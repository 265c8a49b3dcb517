"""The root file system that all hosts share, read-only, below an overlay of their own.

Made once with mmdebstrap from the machine's own apt sources, so that the hosts run the distribution and the
Python of the machine, and kept outside the source tree, in $XDG_CACHE_HOME/zmqmr-testbed.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.commands import CommandFailed, run

_VERSION = "1"  # change it when the steps below change
_SOURCES = ("debian.sources", "ubuntu.sources", "../sources.list")
_PACKAGES = (
    "ca-certificates", "dbus", "e2fsprogs", "iproute2", "mount", "openssh-server", "procps", "python3",
    "python3-apt", "python3-venv", "sudo", "systemd", "systemd-sysv", "udev", "util-linux", "xfsprogs",
)  # fmt: skip
# What only costs time in a container.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service", "dpkg-db-backup.timer",
    "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "getty@.service", "systemd-pstore.service",
)  # fmt: skip


def cache_directory() -> Path:
    """Where the root file system and the running testbeds are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "zmqmr-testbed"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock `name` of the cache directory."""
    cache_directory().mkdir(parents=True, exist_ok=True)
    with open(cache_directory() / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def rootfs() -> Path:
    """The root file system, made if there is none yet (half a minute to two minutes)."""
    suite = _suite()
    recipe = " ".join([_VERSION, suite, *sorted(_PACKAGES), *_MASKED])
    path = cache_directory() / f"rootfs-{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with locked("rootfs"):
        if not path.exists():
            part = path.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            _bootstrap(suite, part)
            _configure(part)
            part.rename(path)
    return path


def _suite() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise CommandFailed("/etc/os-release names no release; the testbed needs Debian or Ubuntu")


def _sources() -> Path:
    folder = Path("/etc/apt/sources.list.d")
    found = [folder / name for name in _SOURCES if (folder / name).exists()]
    if not found:
        raise CommandFailed("apt has no sources on this machine; the testbed needs Debian or Ubuntu")
    return found[0].resolve()


def _bootstrap(suite: str, path: Path) -> None:
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale", "info")]
    options = ["--quiet", "--variant=minbase", "--format=directory", f"--include={','.join(_PACKAGES)}"]
    languages = '--aptopt=Acquire::Languages "none"'
    command = ["mmdebstrap", *options, languages, *excluded, suite, str(path), str(_sources())]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CommandFailed(f"mmdebstrap ended with {done.returncode}: {done.stderr.strip()[-2000:]}")


def _configure(path: Path) -> None:
    etc = path / "etc"
    for name in ("machine-id", "resolv.conf", "fstab"):
        (etc / name).unlink(missing_ok=True)
        (etc / name).write_text("")
    for key in (etc / "ssh").glob("ssh_host_*"):  # each host has its own
        key.unlink()
    run("chroot", path, "useradd", "--create-home", "--shell", "/bin/bash", "ubuntu")
    sudoers = etc / "sudoers.d" / "90-ubuntu"
    sudoers.write_text("ubuntu ALL=(ALL) NOPASSWD:ALL\n")
    sudoers.chmod(0o440)
    with open(etc / "ssh" / "sshd_config", "a") as config:
        config.write("\nUseDNS no\nMaxStartups 100\n")
    for unit in _MASKED:
        link = etc / "systemd" / "system" / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
