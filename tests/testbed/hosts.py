"""One host: a container with systemd as its first process, a network, sshd, and blank drives.

Its state is in files, for the test that kills a host and the fake EC2 that made it are different processes.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from testbed.commands import CommandFailed, cgroups, run
from testbed.network import Network
from testbed.rootfs import rootfs

DRIVE_BYTES = 1 << 30
_REBOOT = 133  # systemd-nspawn ends with it when the host reboots itself
_POWER_OFF = signal.SIGRTMIN + 4  # what systemd takes for "power off"

# The host's own cgroup lets one write kill all of it; nspawn's scratch folder dies with the mount namespace.
_LAUNCHER = """
set -e
echo $$ > {cgroup}/cgroup.procs
[ ! -d /sys/fs/cgroup/systemd ] || echo 0 > /sys/fs/cgroup/systemd/cgroup.procs
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
mount -t overlay overlay -o lowerdir={lower},upperdir={folder}/upper,workdir={folder}/work {folder}/root
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
while :; do
    status=0
    {nspawn} || status=$?
    [ $status = {reboot} ] || break
done
echo $status > {folder}/ended
"""


@dataclass
class Drive:
    """A drive: the name that EC2's udev rules give it, its file, and the loop device."""

    link: str
    image: str
    device: str


@dataclass
class Host:
    """A host, known by its number; `address` follows from it on the fake EC2."""

    folder: Path
    network: Network
    number: int
    address: str
    drives: list[Drive] = field(default_factory=list)
    read_only: list[str] = field(default_factory=list)
    public: str = ""  # another address of it, by which the controller may reach it

    @classmethod
    def load(cls, folder: Path, network: Network) -> "Host":
        """The host whose state is in `folder`."""
        state = json.loads((folder / "state.json").read_text())
        drives = [Drive(**drive) for drive in state.pop("drives")]
        return cls(folder=folder, network=network, drives=drives, **state)

    @property
    def hostname(self) -> str:
        """As EC2 names it."""
        return "ip-" + self.address.replace(".", "-")

    @property
    def alive(self) -> bool:
        """Whether its systemd runs."""
        return self._leader() is not None

    @property
    def host_key(self) -> str:
        """Its public ssh host key, `ssh-ed25519 AAAA...`; empty before the host was made."""
        path = self.folder / "upper/etc/ssh/ssh_host_ed25519_key.pub"
        return " ".join(path.read_text().split()[:2]) if path.exists() else ""

    @property
    def ended_by_itself(self) -> bool:
        """Whether the host powered itself off, and nobody here asked it to."""
        return (self.folder / "ended").exists() and not (self.folder / "ordered").exists()

    def create(self, authorized_key: str, drives: int = 2) -> None:
        """Make and boot it; `authorized_key` opens the account ubuntu."""
        for name in ("upper/etc/ssh", "upper/etc/tmpfiles.d", "work", "root"):
            (self.folder / name).mkdir(parents=True)
        etc = self.folder / "upper/etc"
        (etc / "hostname").write_text(self.hostname + "\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.hostname}\n")
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.hostname,
            "-f", etc / "ssh/ssh_host_ed25519_key")  # fmt: skip
        self._authorize(authorized_key)
        self.drives = [self._new_drive(index) for index in range(drives)]
        self._save()
        self.network.plug(self.number, self.address, self.public)
        self._boot()

    def kill(self) -> None:
        """The death of a whole machine: the cable first, then every process at once."""
        self._order()
        self.network.cut(self.number)
        self._kill_processes()
        self.network.unplug(self.number)

    def power_off(self, timeout: float = 30) -> None:
        """An orderly end, as EC2 does it when it stops or terminates an instance; then kill()."""
        self._order()
        leader = self._leader()
        if leader is not None:
            os.kill(leader, _POWER_OFF)
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline and self._populated():
                time.sleep(0.05)
        self.kill()

    def start(self, blank_drives: bool = True, prepare: Callable[[Drive], None] | None = None) -> None:
        """Boot it again, on the same root drive and address; on EC2, drives lose what they held meanwhile.

        `prepare` is given the first drive before the boot.
        """
        if blank_drives:
            for index, drive in enumerate(self.drives):
                run("losetup", "--detach", drive.device, check=False)
                Path(drive.image).unlink(missing_ok=True)
                self.drives[index] = self._new_drive(index)
            self._save()
        if prepare is not None:
            prepare(self.drives[0])
        self.network.plug(self.number, self.address, self.public)
        self._boot()

    def remove(self) -> None:
        """End it and remove all that it was; repeatable."""
        self.kill()
        for line in run("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").splitlines():
            device, _, image = line.partition(" ")
            if image.strip().startswith(f"{self.folder}/"):
                run("losetup", "--detach", device, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def console(self) -> str:
        """What a console shows: its systemd's output, and the host keys as cloud-init prints them."""
        log = self.folder / "console.log"
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace")) if log.exists() else ""
        if not self.host_key:
            return text
        keys = f"{self.host_key} root@{self.hostname}"
        return f"{text}\n-----BEGIN SSH HOST KEY KEYS-----\n{keys}\n-----END SSH HOST KEY KEYS-----\n"

    def enter(self, *command: object, check: bool = True) -> str:
        """Run a command on the host, as root and without ssh; its output."""
        leader = self._leader()
        if leader is None:
            raise CommandFailed(f"host {self.hostname} is not up")
        root = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"]
        return run("nsenter", f"--target={leader}", *root, "--", *command, check=check)

    def wait_for_ssh(self, timeout: float = 60) -> None:
        """Wait until its sshd answers."""
        deadline = time.monotonic() + timeout
        probe = self.network.command("ssh-keyscan", "-T", "2", "-t", "ed25519", self.address)
        while "ssh-ed25519" not in run(*probe, check=False):
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"{self.hostname} has no sshd after {timeout:.0f} s:\n{self.console()[-3000:]}"
                )
            time.sleep(0.1)

    @property
    def _cgroup(self) -> Path:
        return cgroups() / self.network.prefix / f"h{self.number}"

    def _leader(self) -> int | None:
        processes = self._cgroup / "payload/init.scope/cgroup.procs"
        pids = processes.read_text().split() if processes.exists() else []
        return int(pids[0]) if pids else None

    def _populated(self) -> bool:
        events = self._cgroup / "cgroup.events"
        return events.exists() and "populated 1" in events.read_text()

    def _order(self) -> None:
        if self.folder.exists():
            (self.folder / "ordered").touch()

    def _save(self) -> None:
        names = ("number", "address", "read_only", "public")
        state = {name: getattr(self, name) for name in names}
        text = json.dumps({**state, "drives": [asdict(drive) for drive in self.drives]})
        part = self.folder / "state.part"
        part.write_text(text)
        part.rename(self.folder / "state.json")

    def _authorize(self, key: str) -> None:
        folder = self.folder / "upper/home/ubuntu"
        (folder / ".ssh").mkdir(parents=True)
        lower = (rootfs() / "home/ubuntu").stat()
        (folder / ".ssh/authorized_keys").write_text(key + "\n")
        for path in (folder, folder / ".ssh", folder / ".ssh/authorized_keys"):
            os.chown(path, lower.st_uid, lower.st_gid)
        (folder / ".ssh").chmod(0o700)
        (folder / ".ssh/authorized_keys").chmod(0o600)

    def _new_drive(self, index: int) -> Drive:
        image = self.folder / f"drive{index}.img"
        with open(image, "wb") as file:
            file.truncate(DRIVE_BYTES)
        device = run("losetup", "--find", "--show", image)
        serial = zlib.crc32(f"{self.address} {index} {time.time_ns()}".encode())
        link = f"nvme-Amazon_EC2_NVMe_Instance_Storage_AWS{self.number:06X}{serial:08X}"
        return Drive(link, str(image), device)

    def _name_drives(self) -> None:
        """What udev does on an instance; noble's makes two links for each drive."""
        lines = ["d /dev/disk 0755", "d /dev/disk/by-id 0755"]
        for drive in self.drives:
            target = f"../../{Path(drive.device).name}"
            lines += [f"L+ /dev/disk/by-id/{drive.link}{end} - - - - {target}" for end in ("", "_1")]
        (self.folder / "upper/etc/tmpfiles.d/ec2-drives.conf").write_text("\n".join(lines) + "\n")

    def _boot(self) -> None:
        self._name_drives()
        for name in ("ended", "ordered"):
            (self.folder / name).unlink(missing_ok=True)
        self._cgroup.mkdir(parents=True, exist_ok=True)
        script = _LAUNCHER.format(
            cgroup=self._cgroup,
            lower=rootfs(),
            folder=self.folder,
            nspawn=" ".join(self._nspawn()),
            reboot=_REBOOT,
        )
        with open(self.folder / "console.log", "ab") as log:
            subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _nspawn(self) -> list[str]:
        return [
            "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe",
            "--resolv-conf=off", "--timezone=off", "--link-journal=no",
            # There is no device cgroup: with mknod, root of a host could reach this machine's own drive.
            "--drop-capability=CAP_MKNOD",
            f"--directory={self.folder}/root", f"--machine={self.network.prefix}-h{self.number}",
            f"--hostname={self.hostname}", f"--network-namespace-path={self.network.namespace(self.number)}",
            *(f"--bind={drive.device}" for drive in self.drives),
            *(f"--bind-ro={path}" for path in self.read_only),
        ]  # fmt: skip

    def _kill_processes(self) -> None:
        cgroup = self._cgroup
        if not cgroup.exists():
            return
        (cgroup / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + 10
        while self._populated() and time.monotonic() < deadline:
            time.sleep(0.02)
        folders = sorted(
            (path for path in cgroup.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)
        )
        for folder in [*folders, cgroup]:
            folder.rmdir()
