"""What goes wrong between a client and a cluster: lost workers, clients, connections and coordinators."""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from differential.harness import Result, run_stock
from faults.nemesis import some_words
from remote.cluster import RemoteCluster, Wire, until

SLOW = ("--pause", "0.02")  # for each line


@pytest.fixture
def lines(mine: Path) -> Path:
    """Enough for seconds of work at SLOW, in a dozen tasks."""
    path = mine / "lines.txt"
    path.write_text(some_words(600))
    return path


@pytest.fixture
def expected(lines: Path) -> Result:
    return run_stock("noted_words", inputs=[lines])


def end(client: "subprocess.Popen[bytes]") -> Result:
    stdout, stderr = client.communicate(timeout=60)
    return Result(client.returncode, stdout, stderr.decode(errors="replace"))


def same(ours: Result, expected: Result) -> None:
    assert ours.rc == 0, ours.stderr
    assert ours.lines == expected.lines
    assert ours.counters == expected.counters


def executions(tell: Path) -> int:
    path = tell / "executions"
    return len(path.read_text().splitlines()) if path.exists() else 0


def begun(tell: Path, count: int = 2) -> None:
    until(lambda: executions(tell) >= count, "no task began")


def job_id(cluster: RemoteCluster) -> str:
    """The only running job."""
    found = cluster.command("jobs", "--cluster", cluster.name)
    (job,) = re.findall(r"^(\S+) +running", found.stdout.decode(), re.MULTILINE)
    return str(job)


def test_a_worker_lost_while_it_maps_changes_nothing_F1(cluster, lines, expected, tell):
    client = cluster.start("noted_words", *SLOW, "--tell", tell, lines)
    begun(tell)

    cluster.kill("ann")

    same(end(client), expected)


def test_a_client_whose_key_is_exchanged_meanwhile_goes_on_with_the_new_one_T19(
    cluster, lines, expected, tell, mine
):
    authorized = cluster.home / "keys" / "authorized_keys"
    own = mine / "keys"
    shutil.copytree(cluster.home / "keys", own)
    command = cluster.job_command("noted_words", "--gate", tell / "gate", "--tell", tell, lines)
    environ = cluster.environ({"ZMQMR_KEYS": str(own)})
    client = subprocess.Popen(
        command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    begun(tell)

    cluster.command("keygen", "--role", "client", mine / "new")
    os.replace(mine / "new" / "client.secret", own / "client.secret")
    others = [line for line in authorized.read_text().splitlines() if not line.startswith("client ")]
    new = (mine / "new" / "authorized_keys").read_text().strip()
    authorized.write_text("\n".join([*others, new, ""]))
    (tell / "gate").touch()

    same(end(client), expected)


def test_output_that_was_committed_survives_its_worker_F1(cluster, mine, tell):
    """Map-only tasks: their parts are the job's output. The worker that made some of them dies."""
    lines = mine / "lines.txt"
    lines.write_text("".join(f"w{n}\n" for n in range(400)))
    job = mine / "slow_map.py"
    job.write_text(
        "import os, time\n"
        "from mrjob.job import MRJob\n\n\n"
        "class Job(MRJob):\n"
        "    def configure_args(self):\n"
        "        super().configure_args()\n"
        "        self.add_passthru_arg('--tell', required=True)\n\n"
        "    def mapper_final(self):\n"
        "        with open(os.path.join(self.options.tell, 'executions'), 'a') as file:\n"
        "            file.write('x\\n')\n\n"
        "    def mapper(self, _, line):\n"
        "        time.sleep(0.01)\n"
        "        yield line, 1\n\n\n"
        "if __name__ == '__main__':\n"
        "    Job.run()\n"
    )
    client = cluster.start(job, "--tell", tell, "--jobconf", "mapreduce.job.maps=12", lines)
    begun(tell, 6)
    until(lambda: len(cluster.stored()) >= 1, "nothing was stored")

    cluster.kill("ann")

    ours = end(client)
    assert ours.rc == 0, ours.stderr
    assert ours.lines == Counter(f'"w{n}"\t1'.encode() for n in range(400))


def test_a_coordinator_started_again_knows_the_job_and_its_files_F7(cluster, lines, expected, tell):
    client = cluster.start("noted_words", *SLOW, "--tell", tell, lines)
    begun(tell)

    cluster.kill("coordinator")
    cluster.start_coordinator()

    same(end(client), expected)


def test_a_killed_clients_job_ends_after_the_lease_F36(tmp_path, mine, lines, tell):
    cluster = RemoteCluster(tmp_path / "cluster", [mine])
    try:
        cluster.start_coordinator()
        cluster.start_worker("ann")
        command = cluster.job_command("noted_words", "--pause", "1", "--tell", tell, lines)
        environ = cluster.environ({"ZMQMR_CLIENT_LEASE_SECONDS": "1"})
        client = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        begun(tell, 1)
        job = job_id(cluster)

        client.kill()
        client.communicate()

        def killed() -> bool:
            shown = cluster.command("show", job, "--cluster", cluster.name)
            return "killed: its client has been gone for 1 second" in shown.stdout.decode()

        until(killed, "the job went on without its client")
    finally:
        cluster.end()


def test_a_client_may_be_quiet_for_longer_than_the_lease_while_it_lives(cluster, lines, expected, tell):
    """It says that it lives, whatever the coordinator says meanwhile."""
    command = cluster.job_command("noted_words", "--pause", "0.04", "--tell", tell, lines)
    environ = cluster.environ({"ZMQMR_CLIENT_LEASE_SECONDS": "2"})
    done = subprocess.run(command, env=environ, capture_output=True, timeout=60)

    same(Result(done.returncode, done.stdout, done.stderr.decode()), expected)


def test_an_interrupt_kills_the_job_F36(cluster, lines, tell):
    client = cluster.start("noted_words", "--pause", "1", "--tell", tell, lines)
    begun(tell)
    job = job_id(cluster)

    client.send_signal(signal.SIGINT)

    assert end(client).rc == 130
    shown = cluster.command("show", job, "--cluster", cluster.name, "--json").stdout
    assert b'"state": "killed"' in shown or b'"state":"killed"' in shown


def test_a_detached_job_goes_on_and_attach_fetches_its_output_F37(cluster, lines, expected, tell, mine):
    detached = cluster.run("noted_words", "--detach", *SLOW, "--tell", tell, lines)
    assert detached.rc == 0, detached.stderr
    (job,) = detached.stdout.decode().split()
    assert job_id(cluster) == job

    attached = cluster.command("attach", job, "--cluster", cluster.name)

    same(attached, expected)
    assert cluster.stored() == []
    again = cluster.command("attach", job, "--cluster", cluster.name)
    assert again.rc == 2
    assert "was fetched before" in again.stderr


def test_a_second_client_sees_the_same_and_the_first_goes_on_F37(cluster, lines, expected, tell, mine):
    client = cluster.start("noted_words", *SLOW, "--tell", tell, lines)
    begun(tell)
    job = job_id(cluster)

    other = cluster.command("attach", job, "--cluster", cluster.name, "--json")

    assert other.rc == 0 and b"succeeded" in other.stdout
    same(end(client), expected)


def test_kill_ends_a_job_and_says_so(cluster, lines, tell):
    client = cluster.start("noted_words", "--pause", "1", "--tell", tell, lines)
    begun(tell)
    job = job_id(cluster)

    killed = cluster.command("kill", job[:20], "--cluster", cluster.name)

    assert (killed.rc, killed.stdout.decode()) == (0, f"{job} was killed\n"), killed.stderr
    assert end(client).rc == 130
    assert cluster.command("kill", job, "--cluster", cluster.name).rc == 2
    assert cluster.command("show", "nothing", "--cluster", cluster.name).rc == 2


@pytest.mark.parametrize("how", ["cut", "hush"])
def test_a_client_whose_connection_is_lost_follows_its_job_all_the_same(cluster, lines, expected, tell, how):
    wire = Wire(cluster.port)
    try:
        client = cluster.start(
            "noted_words", "--pause", "0.04", "--tell", tell, lines, cluster=f"tcp://127.0.0.1:{wire.port}"
        )
        begun(tell)

        getattr(wire, how)()

        same(end(client), expected)
    finally:
        wire.stop()


def test_a_push_goes_on_after_the_connection_is_lost(cluster, mine):
    big = mine / "big.txt"
    big.write_bytes(os.urandom(1_500_000).hex().encode() + b"\n")
    wire = Wire(cluster.port, pause=0.01)
    try:
        client = cluster.start(
            "map_only",
            "--jobconf",
            "mapreduce.job.maps=1",
            big,
            cluster=f"tcp://127.0.0.1:{wire.port}",
        )
        partial = cluster.home / "coordinator" / "store" / "partial"
        until(lambda: any(p.stat().st_size > 1024**2 for p in partial.glob("*")), "no push began")

        wire.cut()

        ours = end(client)
        assert ours.rc == 0, ours.stderr
        assert ours.lines == run_stock("map_only", inputs=[big]).lines
    finally:
        wire.stop()


def test_no_coordinator_is_said_in_one_line(tmp_path):
    cluster = RemoteCluster(tmp_path / "cluster", [])

    ours = cluster.run("word_count", stdin=b"a\n")

    assert ours.rc == 3
    assert "has not answered" in ours.stderr or "does not answer" in ours.stderr


def test_a_key_that_is_not_authorized_is_refused_by_the_store_T1(cluster, tmp_path):
    other = RemoteCluster.__new__(RemoteCluster)
    other.home, other.port = tmp_path / "other", cluster.port
    (tmp_path / "other").mkdir()
    RemoteCluster.command(other, "keygen", tmp_path / "other" / "keys")
    (tmp_path / "other" / "keys" / "coordinator.pub").unlink()
    (tmp_path / "other" / "keys" / "coordinator.pub").write_bytes(
        (cluster.home / "keys" / "coordinator.pub").read_bytes()
    )

    ours = other.run("word_count", stdin=b"a\n")

    assert ours.rc == 3
    assert cluster.stored() == []
