"""T2: what goes over the network cannot be read there."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from differential.harness import Result
from faults.nemesis import WORDS, FaultPlace
from netns.network import network
from netns.services import Cluster, Host
from threats.conftest import MARKER

CAPTURE = Path(__file__).parent / "capture.py"


def captured(tmp_path: Path, keys: Path | None, words: Path, expected: Result) -> bytes:
    """All packets of a job, on the loopback interface of a network namespace of its own."""
    notes = tmp_path / "notes"
    notes.mkdir()
    packets = tmp_path / "packets"
    with network("alone") as wires, TemporaryDirectory() as folder:
        host = Host("alone", "127.0.0.1", wires.hosts["alone"].prefix)
        command = [*host.prefix, sys.executable, str(CAPTURE), str(packets)]
        sniffer = subprocess.Popen(command, stdout=subprocess.PIPE)
        cluster = Cluster(FaultPlace(Path(folder), notes), keys)
        try:
            assert sniffer.stdout is not None and sniffer.stdout.readline() == b"ready\n"
            cluster.start_coordinator(host)
            for name in ("w0", "w1"):
                cluster.start_worker(name, host, "*")
            cluster.await_workers("w0", "w1")
            cluster.submit(WORDS, [words], tmp_path / "out", host=host).assert_same_as(expected, cluster)
            cluster.stop()
        finally:
            cluster.kill()
            sniffer.kill()
            sniffer.communicate()
    return packets.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root can capture packets")
@pytest.mark.parametrize("with_keys", [True, False])
def test_t2_no_byte_of_the_data_is_on_the_wire(
    with_keys: bool, tmp_path: Path, keys: Path, words: Path, expected: Result
) -> None:
    packets = captured(tmp_path, keys if with_keys else None, words, expected)
    assert len(packets) > 20_000
    # Without keys, on loopback, it is there to be read: the capture sees what it looks for.
    for plain in (MARKER.encode(), b"job.py"):
        assert (plain in packets) is not with_keys
