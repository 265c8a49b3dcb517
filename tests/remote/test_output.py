"""The output of a job on a cluster goes to standard output as it arrives."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from differential.harness import run
from remote.cluster import RemoteCluster, Wire, until

MANY = 24  # megabytes of output


@pytest.fixture
def numbers(ours: Path) -> Path:
    path = ours / "numbers.txt"
    path.write_text("".join(f"{number:04d}\n" for number in range(MANY)))
    return path


@pytest.fixture
def blocks(numbers: Path) -> set[bytes]:
    return set(lines_of([f"{number:04d}" for number in range(MANY)]))


def lines_of(inputs: list[str]) -> list[bytes]:
    """The output for these lines of input."""
    return [f"{line} {number} ".ljust(1000, "x").encode() for line in inputs for number in range(1000)]


def in_parts(count: int) -> tuple[str, str]:
    return "--jobconf", f"mapreduce.job.maps={count}"


def job_in(stderr: str) -> str:
    (job,) = re.findall(r"zmqmr attach (\S+)", stderr)
    return str(job)


def begin(steady: RemoteCluster, numbers: Path, cluster: str = "") -> "subprocess.Popen[bytes]":
    """A client whose output nobody reads yet: it has some, and there is more."""
    client = steady.start("makes_blocks", *in_parts(4), numbers, cluster=cluster)
    assert client.stdout is not None
    assert len(os.read(client.stdout.fileno(), 1001)) == 1001
    return client


def test_output_needs_no_room_on_the_clients_drive_and_little_memory(steady, ours, numbers, blocks):
    """The client's directories have 2 MB, its output 24 MB in 3 parts."""
    small = ours / "small"
    small.mkdir()
    mount = f'mount -t tmpfs -o size=2m none {small}; exec "$@"'
    command = steady.job_command("makes_blocks", *in_parts(3), numbers)
    environ = steady.environ({"TMPDIR": str(small), "XDG_STATE_HOME": str(small / "state")})
    if os.geteuid() == 0:
        command = ["unshare", "--mount", "sh", "-ec", mount, "sh", *command]
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n"
        "sys.exit(done.returncode)\n"
    )

    result = run([sys.executable, "-c", code, *command], environ)

    assert result.rc == 0, result.stderr
    assert set(result.lines) == blocks and sum(result.lines.values()) == len(blocks)
    assert "job output is in" not in result.stderr, "there is no such directory"
    assert int(result.stderr.split()[-1]) < 65_000  # KiB: Python and its packages, and 8 chunks
    assert steady.stored() == []


@pytest.mark.parametrize("codec", ["GzipCodec", "BZip2Codec"])
def test_compressed_parts_are_printed_unpacked_and_in_order(steady, ours, codec):
    numbers = ours / "numbers.txt"
    numbers.write_text("1\n2\n3\n")
    compress = (
        "--jobconf",
        "mapreduce.output.fileoutputformat.compress=true",
        "--jobconf",
        f"mapreduce.output.fileoutputformat.compress.codec=org.apache.hadoop.io.compress.{codec}",
    )

    result = steady.run("makes_blocks", *in_parts(3), *compress, numbers)

    assert result.rc == 0, result.stderr
    assert result.stdout == b"".join(line + b"\n" for line in lines_of(["1", "2", "3"]))


def test_a_reader_who_has_seen_enough_ends_the_client_without_a_word(steady, numbers):
    client = begin(steady, numbers)
    assert client.stdout is not None and client.stderr is not None

    client.stdout.close()

    said = client.stderr.read().decode()
    assert client.wait(60) == 1  # as for a job of this machine
    assert "Traceback" not in said and "attach" not in said
    assert steady.stored() == []


def test_an_interrupt_while_output_is_printed_keeps_it_on_the_cluster_F36(steady, numbers, blocks):
    client = begin(steady, numbers)

    client.send_signal(signal.SIGINT)

    _, stderr = client.communicate(timeout=60)
    said = stderr.decode()
    assert client.returncode == 130 and "Traceback" not in said
    again = steady.command("attach", job_in(said))
    assert set(again.lines) == blocks
    assert steady.stored() == []


def test_output_goes_on_after_its_connection_was_lost(steady, numbers, blocks):
    wire = Wire(steady.port)
    try:
        client = begin(steady, numbers, f"tcp://127.0.0.1:{wire.port}")

        wire.cut()

        stdout, stderr = client.communicate(timeout=60)
        assert client.returncode == 0, stderr.decode()
        lines = stdout.splitlines()
        assert len(lines) == MANY * 1000 - 1 and set(lines) < blocks
    finally:
        wire.stop()


def test_a_client_that_is_killed_while_it_fetches_is_replaced_by_attach_F36(steady, ours, numbers, blocks):
    wire, output = Wire(steady.port, pause=0.02), ours / "out"
    try:
        client = steady.start(
            "makes_blocks", *in_parts(4), "-o", output, numbers, cluster=f"tcp://127.0.0.1:{wire.port}"
        )
        until(lambda: [*output.glob("part-*")], "nothing was fetched")
        client.kill()
        client.communicate()
        assert not (output / "_SUCCESS").exists()
        (job,) = {path.split("/")[0] for path in steady.stored() if path.startswith("makes_blocks")}

        attached = steady.command("attach", job)

        assert attached.rc == 0, attached.stderr
        fetched = b"".join(path.read_bytes() for path in output.glob("part-*")).splitlines()
        assert len(fetched) == len(blocks) and set(fetched) == blocks
        assert (output / "_SUCCESS").exists() and not (output / "_temporary").exists()
        assert steady.stored() == []
    finally:
        wire.stop()


def test_a_part_that_is_damaged_in_the_store_fails_the_client_F20(steady, ours, tmp_path):
    """It is said after the part was printed, and the output is not taken for fetched. To run the job again,
    as that says, helps."""
    numbers = ours / "numbers.txt"
    numbers.write_text("1\n")
    detached = steady.run("makes_blocks", "--detach", numbers)
    job = detached.stdout.decode().strip()
    until(lambda: b"succeeded" in steady.command("show", job).stdout, "the job did not end")
    (blob,) = [
        path for path in (steady.home / "coordinator" / "store" / "jobs" / job).iterdir()
        if path.stat().st_size > 500_000
    ]  # fmt: skip
    with blob.open("r+b") as file:
        file.seek(4000)
        file.write(b"!")

    attached = steady.command("attach", job)

    assert attached.rc == 1
    assert "the output file part-00000 arrived damaged" in attached.stderr
    assert [path for path in steady.stored() if path.startswith(job)]
    again = steady.run("makes_blocks", numbers)
    assert set(again.lines) == set(lines_of(["1"])), again.stderr
    shutil.rmtree(blob.parent)


def test_an_input_that_is_damaged_in_the_store_is_pushed_again_by_the_next_run_F20(steady, ours):
    words, output = ours / "words.txt", ours / "out"
    words.write_text("an input of its own\n")
    assert steady.run("word_count", words).rc == 0
    name = hashlib.sha256(words.read_bytes()).hexdigest()
    with (steady.home / "coordinator" / "store" / "blobs" / name).open("r+b") as file:
        file.write(b"!!")

    failed = steady.run("word_count", words, output=output)
    again = steady.run("word_count", words, output=output)

    assert failed.rc == 1 and "run the job again" in failed.stderr.splitlines()[-1]
    assert (again.rc, again.lines[b'"an"\t1']) == (0, 1), again.stderr
    assert steady.stored() == []
