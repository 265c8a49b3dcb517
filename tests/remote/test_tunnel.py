"""--cluster NAME: the cluster's directory, and the ssh that leads there. A stand-in forwards the sockets; the
tests of real hosts have a real sshd."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import zmq
from differential.harness import Result, plain_environ, run, run_stock
from remote.cluster import RemoteCluster, free_ports, until

from zmqmr.client import tunnel


@pytest.fixture
def config(steady: RemoteCluster, tmp_path: Path) -> Path:
    """The configuration of a user who knows the steady cluster as `demo`, with a stand-in for ssh in bin."""
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(f"#!{sys.executable}\n" + (Path(__file__).parent / "stand_in_ssh.py").read_text())
    ssh.chmod(0o755)
    demo = tmp_path / "zmqmr" / "clusters" / "demo"
    demo.mkdir(parents=True)
    for name in ("coordinator.pub", "client.secret"):
        (demo / name).write_bytes((steady.home / "keys" / name).read_bytes())
    (demo / "client.secret").chmod(0o400)
    (demo / "id_ed25519").touch(0o600)
    (demo / "known_hosts").write_text("there.example ssh-ed25519 AAAA\n")
    described = {"name": "demo", "coordinator": "there.example", "user": "op", "port": 2222, "region": "r"}
    ports = {"control_port": steady.port, "store_port": steady.port + 1}
    (demo / "cluster.json").write_text(json.dumps(described | ports))
    return tmp_path


def environ(config: Path, **more: str) -> dict[str, str]:
    path = f"{config / 'bin'}:{os.environ['PATH']}"
    ssh = {"PATH": path, "SSH_LOG": str(config / "ssh.log"), "XDG_CONFIG_HOME": str(config)}
    return plain_environ(ssh | more)


def runs_of_ssh(config: Path) -> list[list[str]]:
    path = config / "ssh.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tunnels() -> set[str]:
    return {name for name in os.listdir("/tmp") if name.startswith("zmqmr-ssh-")}


def test_a_job_goes_through_ssh_which_checks_the_host_and_leaves_nothing(steady, config, text):
    before = tunnels()

    result = run(steady.job_command("word_count", text, cluster="demo"), environ(config))

    stock = run_stock("word_count", inputs=[text])
    assert result.rc == 0, result.stderr
    assert (result.lines, result.counters) == (stock.lines, stock.counters)
    assert tunnels() <= before
    ((_, *words),) = runs_of_ssh(config)
    for wanted in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ExitOnForwardFailure=yes"):
        assert wanted in words
    assert words[-3:] == ["op", "--", "there.example"]
    assert "2222" in words
    secret = (steady.home / "keys" / "client.secret").read_text().strip()
    assert not any(secret in word for word in words)


def test_the_cluster_may_be_named_in_mrjob_conf(steady, config, ours):
    words = ours / "words.txt"
    words.write_text("a b a\n")
    conf = config / "mrjob.conf"
    conf.write_text("runners: {zeromq: {cluster: demo}}\n")
    command = steady.job_command("word_count", words)
    command = [word for word in command if word not in ("--no-conf", "--cluster", steady.name)]

    result = run([*command, "--conf-path", str(conf)], environ(config))

    assert result.rc == 0, result.stderr
    assert set(result.lines) == {b'"a"\t2', b'"b"\t1'}
    assert len(runs_of_ssh(config)) == 1


JOB = """\
import zmqmr.register
from mrjob.job import MRJob


class Job(MRJob):
    def mapper(self, _, line):
        yield line, 1


if __name__ == '__main__':
    Job.run()
"""


@pytest.mark.parametrize("how", ["switch", "conf"])
def test_mrjobs_own_command_knows_the_cluster_too(steady, config, ours, how):
    """`python job.py -r zeromq`, with the cluster as a switch and in mrjob.conf."""
    job, words = ours / "job.py", ours / "words.txt"
    job.write_text(JOB)
    words.write_text("a\n")
    (config / "mrjob.conf").write_text("runners: {zeromq: {cluster: demo}}\n")
    where = ["--no-conf", "--cluster", "demo"] if how == "switch" else ["-c", str(config / "mrjob.conf")]

    result = run([sys.executable, job, "-r", "zeromq", *where, words], environ(config))

    assert (result.rc, result.stdout) == (0, b'"a"\t1\n'), result.stderr
    assert len(runs_of_ssh(config)) == 1


def test_an_unknown_cluster_is_answered_by_those_that_are_known(steady, config, text):
    (config / "zmqmr" / "clusters" / "lab").mkdir()

    result = run(steady.job_command("word_count", text, cluster="dem"), environ(config))

    assert result.rc == 2
    assert result.stderr.splitlines()[-1] == "no cluster dem is known here; there are: demo, lab"


def test_ssh_that_is_killed_is_started_again_and_the_job_followed(steady, config, ours, tmp_path):
    words = ours / "words.txt"
    words.write_text("a\nb\nc\nd\n")
    tell = tmp_path / "tell"
    tell.mkdir()
    command = steady.job_command("noted_words", "--pause", "1", "--tell", tell, words, cluster="demo")
    client = subprocess.Popen(
        command, env=environ(config), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until((tell / "executions").exists, "no task began")

    os.kill(int(runs_of_ssh(config)[0][0]), signal.SIGKILL)

    stdout, stderr = client.communicate(timeout=60)
    result = Result(client.returncode, stdout, stderr.decode())
    assert result.rc == 0, result.stderr
    assert sum(result.lines.values()) == 4
    assert len(runs_of_ssh(config)) == 2


@pytest.mark.parametrize("name", ["a%hb", "a${HOME}", "a:b", "a[b", "a\\b", "ä" * 20, "x" * 60])
def test_a_directory_for_temporary_files_that_ssh_would_misread_is_not_used(tmp_path, monkeypatch, name):
    for folder, used in ((f"/tmp/{name}", "/tmp"), ("/tmp/plain one", "/tmp/plain one")):
        monkeypatch.setattr(tempfile, "tempdir", folder)
        assert tunnel._short_directory() == used


def test_ssh_ends_with_a_client_that_is_killed(steady, config, ours, tmp_path):
    tell = tmp_path / "tell"
    tell.mkdir()
    words = ours / "words.txt"
    words.write_text("a\n")
    before = tunnels()
    command = steady.job_command("noted_words", "--pause", "30", "--tell", tell, words, cluster="demo")
    client = subprocess.Popen(
        command, env=environ(config), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until((tell / "executions").exists, "no task began")
    ((pid, *_),) = runs_of_ssh(config)

    client.kill()
    client.communicate()

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    until(is_gone, "ssh outlived its client")
    assert run([sys.executable, "-m", "zmqmr", "jobs", "--cluster", "demo"], environ(config)).rc == 0
    assert tunnels() <= before  # the next client has removed what that one left
    steady.end_jobs()


@pytest.mark.parametrize("region", ["eu-west-1", ""])
def test_a_host_that_does_not_answer_may_have_moved_on_ec2(config, text, steady, region):
    ssh = config / "bin" / "ssh"
    ssh.write_text(
        "#!/bin/sh\necho ssh: connect to host there.example port 2222: Connection timed out >&2\nexit 255\n"
    )
    described = json.loads((config / "zmqmr/clusters/demo/cluster.json").read_text())
    (config / "zmqmr/clusters/demo/cluster.json").write_text(json.dumps(described | {"region": region}))

    result = run(steady.job_command("word_count", text, cluster="demo"), environ(config))

    assert result.rc == 3
    hint = "; if it has moved, or ssh_from has not your address, run cluster.yml again"
    assert result.stderr.splitlines()[-1].endswith("Connection timed out" + hint * bool(region))


def test_an_unknown_host_is_refused_in_one_line_T13(steady, config, text):
    known = config / "zmqmr" / "clusters" / "demo" / "known_hosts"
    known.write_text("")

    result = run(steady.job_command("word_count", text, cluster="demo"), environ(config))

    assert result.rc == 3
    assert (
        "cannot reach the cluster demo by ssh at there.example: Host key verification failed.\n"
        in result.stderr
    )


def test_a_coordinator_with_another_key_is_told_from_none_T19(steady, config):
    """Both end the connection without a word; the user learns which of them it was."""
    demo = config / "zmqmr" / "clusters" / "demo"
    described = json.loads((demo / "cluster.json").read_text())
    for name in ("down", "old"):
        shutil.copytree(demo, demo.parent / name)
    (demo.parent / "down" / "cluster.json").write_text(json.dumps(described | {"control_port": free_ports()}))
    (demo.parent / "old" / "coordinator.pub").write_bytes(zmq.curve_keypair()[0] + b"\n")
    asking = {
        name: subprocess.Popen(
            [sys.executable, "-m", "zmqmr", "jobs", "--cluster", name],
            env=environ(config),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("down", "old")
    }

    shutil.copytree(steady.home / "keys", config / "keys")
    shutil.copy(demo.parent / "old" / "coordinator.pub", config / "keys")
    operator = steady.command("workers", "--coordinator", steady.name, "--keys", config / "keys")
    said = {name: process.communicate(timeout=60)[1].splitlines()[-1] for name, process in asking.items()}

    assert operator.rc == 3
    assert "has another key than the coordinator.pub that is given" in operator.stderr
    assert [process.returncode for process in asking.values()] == [3, 3], said
    assert said["down"] == "zmqmr: the coordinator of down does not answer; does it run there?"
    assert said["old"] == (
        f"zmqmr: the coordinator of old has another key than {demo.parent}/old/coordinator.pub: somebody has"
        " exchanged the cluster's keys (rotate_keys.yml); get its folder from them"
    )


@pytest.mark.parametrize("file", ["id_ed25519", "known_hosts"])
def test_ssh_goes_by_the_users_own_settings_where_a_cluster_that_is_not_on_ec2_has_none(
    steady, config, text, file
):
    demo = config / "zmqmr" / "clusters" / "demo"
    (demo / file).unlink()
    command = steady.job_command("word_count", text, cluster="demo")

    on_ec2 = run(command, environ(config))
    assert on_ec2.rc == 2
    assert f"cannot read {demo / file}; run the playbook of the cluster demo again" in on_ec2.stderr

    described = json.loads((demo / "cluster.json").read_text())
    (demo / "cluster.json").write_text(json.dumps(described | {"region": ""}))
    assert run(command, environ(config)).rc == 0
    ((_, *words),) = runs_of_ssh(config)
    assert "StrictHostKeyChecking=yes" in words
    assert ("IdentitiesOnly=yes" in words) is (file == "known_hosts")
    assert any(word.startswith("UserKnownHostsFile=") for word in words) is (file == "id_ed25519")


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("cluster.json", "{", "run the playbook of the cluster again"),
        ("cluster.json", '{"name": "demo", "coordinator": "-oProxyCommand=x"}', "are not those of a host"),
        ("cluster.json", '{"name": "demo", "coordinator": "a", "user": "-x"}', "are not those of a host"),
        ("client.secret", "short", "is not a key"),
    ],
)
def test_a_damaged_description_is_wrong_usage(steady, config, text, file, content, why):
    path = config / "zmqmr" / "clusters" / "demo" / file
    path.chmod(0o600)
    path.write_text(content)

    result = run(steady.job_command("word_count", text, cluster="demo"), environ(config))

    assert result.rc == 2
    assert why in result.stderr
    assert runs_of_ssh(config) == []


def test_a_secret_that_others_can_read_is_refused_T9(steady, config, text):
    (config / "zmqmr" / "clusters" / "demo" / "client.secret").chmod(0o644)

    result = run(steady.job_command("word_count", text, cluster="demo"), environ(config))

    assert result.rc == 2
    assert "client.secret can be read by others" in result.stderr
