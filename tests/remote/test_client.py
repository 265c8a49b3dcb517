"""What goes wrong on the client's side: its interrupts, its drives, its inputs."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from differential.harness import Result, run, run_stock
from remote.cluster import RemoteCluster, Wire, until
from remote.test_tunnel import config, environ, runs_of_ssh  # noqa: F401  a fixture


def end(client: "subprocess.Popen[bytes]") -> Result:
    stdout, stderr = client.communicate(timeout=60)
    return Result(client.returncode, stdout, stderr.decode(errors="replace"))


def through(wire: Wire) -> str:
    return f"tcp://127.0.0.1:{wire.port}"


@pytest.fixture
def big(ours: Path) -> Path:
    """One line of 3 MB."""
    path = ours / "big.txt"
    path.write_bytes(os.urandom(1_500_000).hex().encode() + b"\n")
    return path


def await_push(cluster: RemoteCluster, path: Path) -> None:
    """Wait until a megabyte of a file has arrived: of the only line of the only split."""
    name = hashlib.sha256(path.read_bytes()).hexdigest()
    partial = cluster.home / "coordinator" / "store" / "partial" / name
    until(lambda: partial.exists() and partial.stat().st_size >= 1024**2, "no push began")


ONE_MAP = ("--jobconf", "mapreduce.job.maps=1")


def test_an_interrupt_while_files_are_pushed_ends_the_client_and_frees_the_store_F36(steady, big):
    wire = Wire(steady.port, pause=0.02)
    try:
        client = steady.start("map_only", *ONE_MAP, big, cluster=through(wire))
        await_push(steady, big)

        client.send_signal(signal.SIGINT)

        ended = end(client)
        assert ended.rc == 130 and "Traceback" not in ended.stderr
        assert steady.stored() == []
    finally:
        wire.stop()


def test_an_interrupt_is_heard_while_the_cluster_is_out_of_reach_F36(steady, ours, tell):
    words = ours / "words.txt"
    words.write_text("a\n" * 4)
    wire = Wire(steady.port)
    client = steady.start("noted_words", "--pause", "30", "--tell", tell, words, cluster=through(wire))
    try:
        until((tell / "executions").exists, "no task began")
        wire.stop()

        client.send_signal(signal.SIGINT)

        ended = end(client)
        assert ended.rc == 130
        assert "the cluster was not heard: the job may go on there" in ended.stderr
        assert re.search(r"zmqmr kill noted_words\S+ --cluster tcp://\S+ ends it", ended.stderr)
    finally:
        steady.end_jobs()


def test_output_that_has_arrived_stays_when_the_cluster_cannot_be_told(steady, ours):
    words, output = ours / "words.txt", ours / "out"
    words.write_text("a\n")
    job = ours / "lonely.py"
    job.write_text(
        "from mrjob.job import MRJob\n\n\n"
        "class Job(MRJob):\n"
        "    def mapper(self, _, line):\n"
        "        yield line, 1\n\n\n"
        "def silent(*_):\n"
        "    from zmqmr.errors import CoordinatorUnreachable\n"
        "    raise CoordinatorUnreachable('not a word')\n\n\n"
        "if __name__ == '__main__':\n"
        "    from zmqmr.net.blobs import StoreClient\n"
        "    StoreClient.release = silent\n"
        "    Job.run()\n"
    )

    result = steady.run(job, words, output=output)

    assert result.rc == 0, result.stderr
    assert result.parts and "_SUCCESS" in result.files
    for kept in (steady.home / "coordinator" / "store" / "jobs").glob("lonely*"):
        shutil.rmtree(kept)


def on_a_small_drive(folder: Path, command: list[str]) -> list[str]:
    """The command, for which `folder` is a drive of 1 MB."""
    folder.mkdir()
    return [
        "unshare",
        "--mount",
        "sh",
        "-ec",
        f'mount -t tmpfs -o size=1m none {folder}; exec "$@"',
        "sh",
        *command,
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_output_that_does_not_fit_is_kept_and_can_be_fetched_elsewhere_F19(steady, ours):
    numbers, small = ours / "numbers.txt", ours / "small"
    numbers.write_text("1\n2\n")
    command = steady.job_command("makes_blocks", "--output-dir", small / "out", numbers)

    failed = run(on_a_small_drive(small, command), steady.environ())

    assert failed.rc == 1 and "Traceback" not in failed.stderr
    assert f"there is less room in {small / 'out'}; make room, or give another --output-dir" in failed.stderr
    (job,) = re.findall(r"zmqmr attach (\S+)", failed.stderr)
    attached = steady.command("attach", job, "--output-dir", ours / "elsewhere")
    assert attached.rc == 0, attached.stderr
    assert sum(path.read_bytes().count(b"\n") for path in (ours / "elsewhere").glob("part-*")) == 2000
    assert steady.stored() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("what", ["standard input", "a file"])
def test_a_full_drive_of_the_client_is_named(steady, ours, big, what):
    small, words = ours / "small", ours / "words.txt"
    words.write_text("a\n")
    given = ("--file", big, words) if what == "a file" else ()
    command = on_a_small_drive(small, steady.job_command("word_count", *given))

    failed = run(command, steady.environ({"TMPDIR": str(small)}), stdin=b"" if given else big.read_bytes())

    assert failed.rc == 1
    assert re.search(rf"cannot write to {small}\S*: No space left on device; make room there", failed.stderr)
    assert steady.stored() == []


def test_very_many_and_odd_inputs_give_what_inline_gives(steady, ours):
    """A directory with small, empty and hidden files, and odd names."""
    folder = ours / "many"
    (folder / "below" / ".hidden").mkdir(parents=True)
    for number in range(60):
        (folder / f"{number}.txt").write_text(f"w{number % 5}\n" * (number % 3))
    for name in (".dot", "below/.hidden/in", "below/ä b", "below/no end", "below/*[?]"):
        (folder / name).write_text("odd\n" * (name != "below/no end") or "odd")

    result = steady.run("word_count", folder)

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    counts = {f"w{number}": 0 for number in range(5)}
    for number in range(60):
        counts[f"w{number % 5}"] += number % 3
    assert len(files) == 65 and result.rc == 0, result.stderr
    expected = {f'"{word}"\t{count}'.encode() for word, count in {**counts, "odd": 5}.items()}
    assert set(result.lines) == expected
    assert "pushing 65 input files" in result.stderr


def test_inputs_without_a_line_are_no_fault(steady, ours):
    (ours / "nothing").touch()

    result = steady.run("word_count", ours / "nothing")
    nothing = steady.run("word_count")

    assert (result.rc, result.stdout) == (0, b""), result.stderr
    assert (nothing.rc, nothing.stdout) == (0, b""), nothing.stderr


@pytest.mark.parametrize("phase", ["push", "output"])
def test_ssh_that_is_killed_while_files_move_is_started_again_and_said(steady, config, big, ours, phase):  # noqa: F811
    """The job is what inline makes of it."""
    wire = Wire(steady.port, pause=0.02)
    described = config / "zmqmr" / "clusters" / "demo" / "cluster.json"
    ports = {"control_port": wire.port, "store_port": wire.port + 1}
    described.write_text(json.dumps(json.loads(described.read_text()) | ports))
    try:
        command = steady.job_command("map_only", *ONE_MAP, big, cluster="demo")
        pipe = subprocess.PIPE
        client = subprocess.Popen(
            command, env=environ(config), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
        if phase == "push":
            await_push(steady, big)
        else:
            assert client.stderr is not None
            while b"the output" not in client.stderr.readline():
                assert client.poll() is None
        os.kill(int(runs_of_ssh(config)[0][0]), signal.SIGKILL)

        result = end(client)

        assert result.rc == 0, result.stderr
        assert result.lines == run_stock("map_only", inputs=[big]).lines
        assert len(runs_of_ssh(config)) == 2
        assert "ssh to the cluster demo has ended and is started again" in result.stderr
    finally:
        wire.stop()


def test_two_clients_that_begin_together_do_not_remove_each_others_sockets(tmp_path):
    """Each clears what killed clients have left, while the other has made its directory and not locked it."""
    code = (
        "import os, threading\n"
        "from zmqmr.client import tunnel\n"
        "stop = threading.Event()\n"
        "def clear():\n"
        "    while not stop.is_set():\n"
        "        tunnel._remove_abandoned()\n"
        "thread = threading.Thread(target=clear)\n"
        "thread.start()\n"
        "for _ in range(300):\n"
        "    directory, lock = tunnel._own_directory()\n"
        "    assert os.path.isdir(directory)\n"
        "    os.rmdir(directory)\n"
        "    os.close(lock)\n"
        "stop.set()\n"
        "thread.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ) | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
