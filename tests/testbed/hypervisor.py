"""Makes the hosts follow the fake EC2's instances."""

import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from testbed.bed import REGION, Testbed
from testbed.hosts import Host
from testbed.moto_gaps import instances

_WANTED = {"pending": "up", "running": "up", "stopping": "off", "stopped": "off"}
_POLL_SECONDS = 0.1


class Hypervisor:
    """Looks at the instances again and again; the changes of one instance are made one after the other."""

    def __init__(self, bed: Testbed) -> None:
        self._bed = bed
        self._known: dict[str, str] = {}
        self._busy: set[str] = set()
        # Instance types without local NVMe have no drives.
        self._driveless = ("t2.", "t3.", "m5.", "c5.", "m6i.", "c6i.")

    def run(self) -> None:
        """Follow the instances until the process ends."""
        with ThreadPoolExecutor(8) as pool:
            while True:
                for instance in instances(REGION):
                    self._follow(instance, pool)
                time.sleep(_POLL_SECONDS)

    def console(self, address: str) -> str:
        """The console output of the host at this address; empty before there is one."""
        folder = self._bed.folder / "hosts" / f"h{_number(address)}"
        return Host.load(folder, self._bed.network).console() if (folder / "state.json").exists() else ""

    def _follow(self, instance: Any, pool: ThreadPoolExecutor) -> None:
        if instance.id in self._busy:
            return
        was, wanted = self._known.get(instance.id, "gone"), _WANTED.get(instance.state, "gone")
        if was == wanted:
            if wanted == "up" and self._host(instance).ended_by_itself:
                self._end(instance)
            return
        self._busy.add(instance.id)
        pool.submit(self._change, instance, was, wanted)

    def _end(self, instance: Any) -> None:
        """An instance that powers itself off is stopped or terminated, as its launch said."""
        if instance.instance_initiated_shutdown_behavior == "terminate":
            instance.terminate()
        else:
            instance.stop()

    def _change(self, instance: Any, was: str, wanted: str) -> None:
        try:
            host = self._host(instance)
            host.public = instance.public_ip or ""  # another one after each start, as on EC2
            if wanted == "up" and was == "gone":
                drives = 0 if instance.instance_type.startswith(self._driveless) else 2
                host.create(self._authorized_key(instance), drives)
            elif wanted == "up":
                host.start(blank_drives=True)
            elif wanted == "off":
                host.power_off()
            else:
                host.power_off()
                host.remove()
            self._known[instance.id] = wanted
        except Exception:
            traceback.print_exc(file=sys.stderr)
            time.sleep(1)
        finally:
            self._busy.discard(instance.id)

    def _host(self, instance: Any) -> Host:
        number = _number(instance.private_ip)
        folder = self._bed.folder / "hosts" / f"h{number}"
        if (folder / "state.json").exists():
            return Host.load(folder, self._bed.network)
        return Host(folder, self._bed.network, number, instance.private_ip)

    def _authorized_key(self, instance: Any) -> str:
        pair = instance.ec2_backend.key_pairs.get(instance.key_name)
        return pair.material_public.decode().strip() if pair is not None else ""


def _number(address: str) -> int:
    third, fourth = address.split(".")[2:]
    return int(third) * 256 + int(fourth)
