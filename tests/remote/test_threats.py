"""Threats to a cluster, and from its jobs, that are not about who may connect."""

import os
from pathlib import Path

import pytest
from differential.harness import run, run_stock
from remote.cluster import RemoteCluster, until
from threats.peers import PATIENCE_MILLISECONDS, connected

from zmqmr.messages import Leave, Register, ToAgent, Welcome, decode, encode
from zmqmr.net.curve import load_keys
from zmqmr.net.sockets import worker_identity

HOSTILE = "a b'c\"d$(touch x1)`touch x2`;touch x3;\n-e"


def test_t15_what_services_write_is_for_their_account_alone(
    steady: RemoteCluster, ours: Path, tell: Path
) -> None:
    """All that they have made is private; what is in private directories is hidden by those."""
    words = ours / "words.txt"
    words.write_text("a\n" * 10)
    client = steady.start("noted_words", "--pause", "30", "--tell", tell, words)
    until((tell / "executions").exists, "no task began")
    try:
        made = [path for name in ("coordinator", "ann", "bob") for path in (steady.home / name).iterdir()]
        made.append(Path(os.environ["XDG_STATE_HOME"]) / "zmqmr" / "jobs")
        assert {"journal", "store", "worker"} <= {path.name for path in made}
        opened = [path for path in made if path.name != "cwd" and path.stat().st_mode & 0o077]
        assert opened == []
    finally:
        steady.end_jobs()
        client.communicate(timeout=60)


@pytest.mark.parametrize("where", ["cluster", "here"])
def test_t16_what_a_task_leaves_running_ends_with_its_job(
    steady: RemoteCluster, ours: Path, where: str
) -> None:
    job, words = ours / "daemons.py", ours / "words.txt"
    words.write_text("a\nb\n")
    job.write_text(
        "import os, time\n"
        "from mrjob.job import MRJob\n\n\n"
        "class Job(MRJob):\n"
        "    def mapper(self, _, line):\n"
        "        if os.fork() == 0:\n"
        "            os.setsid()\n"
        "            if os.fork() == 0:\n"
        f"                os.execvp('sleep', ['sleep', '1000', {str(job)!r}])\n"
        "            os._exit(0)\n"
        "        time.sleep(0.2)\n"
        "        yield line, 1\n\n\n"
        "if __name__ == '__main__':\n"
        "    Job.run()\n"
    )
    command = steady.job_command(job, words)
    if where == "here":
        command.remove("--cluster")
        command.remove(steady.name)

    done = run(command, steady.environ())

    assert done.rc == 0, done.stderr
    until(lambda: not [line for line in command_lines() if str(job) in line], "it lives")


def command_lines() -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return [line for line in found if line.startswith("sleep\0")]


@pytest.mark.parametrize("where", ["cluster", "here"])
def test_t17_no_name_or_argument_is_taken_for_a_command(
    steady: RemoteCluster, ours: Path, where: str
) -> None:
    """Names of the folder, the job file, inputs and uploads; values of switches and variables."""
    folder = ours / HOSTILE.replace("/", "")
    folder.mkdir()
    job = folder / "-x $(touch x4).py"
    job.write_text(
        "import os\n"
        "from mrjob.job import MRJob\n\n\n"
        "class Job(MRJob):\n"
        "    def configure_args(self):\n"
        "        super().configure_args()\n"
        "        self.add_passthru_arg('--text')\n"
        "        self.add_file_arg('--extra')\n\n"
        "    def mapper(self, _, line):\n"
        "        with open(self.options.extra) as file:\n"
        "            found = [self.options.text, os.environ['GIVEN'], file.read(), os.listdir('.')]\n"
        "            yield line, found\n\n\n"
        "if __name__ == '__main__':\n"
        "    Job.run()\n"
    )
    for name in ("-n $(touch x5)\n.txt", "extra;touch x6", "up`touch x7`"):
        (folder / name).write_text("a\n")
    words = ["--text", HOSTILE, "--cmdenv", f"GIVEN={HOSTILE}", "--extra", str(folder / "extra;touch x6")]
    words += ["--file", str(folder / "up`touch x7`"), "--setup", "true", str(folder / "-n $(touch x5)\n.txt")]
    cluster = ["--cluster", steady.name] if where == "cluster" else []
    before = sorted(os.listdir(folder))

    result = run([*steady.job_command(job)[:5], *cluster, *words], steady.environ(), cwd=folder)

    assert result.rc == 0, result.stderr
    ((line, count),) = result.lines.items()
    assert count == 1 and HOSTILE.replace("\n", "\\n").replace('"', '\\"').encode() in line
    assert sorted(os.listdir(folder)) == before
    assert not list(steady.home.rglob("x[1-7]"))
    assert b'"x' not in line  # nor in the task's own directory


def test_t18_no_counter_or_worker_can_steer_a_terminal_or_forge_a_line(
    steady: RemoteCluster, ours: Path
) -> None:
    job, words = ours / "counts.py", ours / "words.txt"
    job.write_text(
        "from mrjob.job import MRJob\n\n\n"
        "class Job(MRJob):\n"
        "    def mapper(self, _, line):\n"
        "        self.increment_counter(line, line)\n"
        "        yield 1, 1\n\n\n"
        "if __name__ == '__main__':\n"
        "    Job.run()\n"
    )
    words.write_text("\x1b]0;owned\x07\x1b[2J\u202e\n")
    worker = load_keys(str(steady.home / "keys"), "worker")
    host = "\x1b[2J\nann  there  ready"
    register = Register("eve", 1, host, 1, 1, "tcp://127.0.0.1:1", "0.1")

    followed = steady.run(job, words)
    detached = steady.run(job, "--detach", words).stdout.decode().strip()
    attached = steady.command("attach", detached)
    with connected(steady.name, worker, worker_identity("eve", 1)) as socket:
        socket.send(encode(register))
        assert socket.poll(PATIENCE_MILLISECONDS) and isinstance(decode(socket.recv(), ToAgent), Welcome)
        listed = steady.command("workers", "--coordinator", steady.name, "--keys", steady.home / "keys")
        socket.send(encode(Leave(1)))
        until(lambda: "eve" not in steady.workers(), "eve stays")

    assert "owned" in followed.stderr and "owned" in attached.stderr
    table = listed.stdout.decode()
    assert "eve" in table
    for said in (followed.stderr, attached.stderr, table):
        assert not {"\x1b", "\x07", "\u202e"} & set(said)
    assert [line for line in table.splitlines() if line.startswith("ann")] == [
        line for line in table.splitlines() if line.startswith("ann") and "there" not in line
    ]


def test_t18_a_record_cannot_steer_a_terminal_or_forge_a_line_of_a_log(
    steady: RemoteCluster, ours: Path
) -> None:
    job, words = ours / "escapes.py", ours / "words.txt"
    job.write_text(
        "import sys\n"
        "from mrjob.job import MRJob\n\n\n"
        "class Job(MRJob):\n"
        "    def mapper(self, _, line):\n"
        "        print(line, file=sys.stderr)\n"
        "        self.set_status(line)\n"
        "        self.increment_counter(line, line)\n"
        "        raise ValueError(line.replace('|', '\\n'))\n\n\n"
        "if __name__ == '__main__':\n"
        "    Job.run()\n"
    )
    words.write_text("\x1b]0;owned\x07\x1b[2J|zmqmr: the job succeeded\r\u202e\n")

    failed = steady.run(job, words)

    assert failed.rc == 1 and "owned" in failed.stderr  # what it said is there to be read
    for said in (failed.stderr, steady.log()):
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(said)
    assert not [line for line in failed.stderr.splitlines() if line.startswith("zmqmr: the job succeeded")]
    assert run_stock(job, inputs=[words]).rc != 0
