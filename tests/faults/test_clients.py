"""Rows F36 and F37: clients that are interrupted, go away, come back, or were never there."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from differential.harness import DEADLINE_SECONDS, Result, plain_environ
from faults.nemesis import FaultPlace, Run, is_alive
from process.places import wait_until

SLOW = ["--pause", "0.02"]
FOR_EVER = ["--pause", "0.5"]


class Shell:
    """The commands that look at the jobs of a place."""

    def __init__(self, place: FaultPlace, tmp_path: Path):
        self._place = place
        self.state = tmp_path / "state"
        self.settings = {"XDG_STATE_HOME": str(self.state)}

    def zmqmr(self, *args: str, module: str = "zmqmr") -> "subprocess.CompletedProcess[bytes]":
        # Without the mark of the place: they are no process of the job.
        environ = plain_environ({"TMPDIR": str(self._place.temporary), **self.settings})
        command = [sys.executable, "-m", module, *args]
        return subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_SECONDS
        )

    def jobs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.zmqmr("jobs", "--json").stdout.splitlines()]

    def show(self, job: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(self.zmqmr("show", "--json", job).stdout)
        return shown

    def await_job(self) -> str:
        """The id of the newest job, once it is known."""
        wait_until(self.jobs)
        job: str = self.jobs()[0]["job"]
        return job


@pytest.fixture
def shell(place: FaultPlace, tmp_path: Path) -> Shell:
    return Shell(place, tmp_path)


def start(
    place: FaultPlace, shell: Shell, words: Path, args: list[str], output: Path, **popen: object
) -> Run:
    from faults.nemesis import MANY_TASKS

    return Run(place, output, [words], args, MANY_TASKS | shell.settings, **popen)


def detached(place: FaultPlace, shell: Shell, words: Path, args: list[str], tmp_path: Path) -> str:
    """Start a detached job whose output goes to standard output; its id."""
    from faults.nemesis import MANY_TASKS, WORDS

    command = [sys.executable, "-m", "zmqmr.cli.run", WORDS, "--no-conf", "--detach", "--tell", place.notes]
    done = subprocess.run(
        [str(word) for word in [*command, *args, words]],
        env=plain_environ(place.environ(**MANY_TASKS, **shell.settings)),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    (job,) = done.stdout.split()
    return job


def lines(output: bytes) -> Counter[bytes]:
    return Counter(output.splitlines())


# --- interrupts ------------------------------------------------------------------------------


def test_f36_a_second_control_c_leaves_at_once_and_says_which_job_is_being_killed(
    place: FaultPlace, shell: Shell, words: Path, tmp_path: Path
) -> None:
    """With a frozen agent the end takes a while; once it goes on, it sees to it alone."""
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "preexec_fn": _take_terminal}
    run = start(place, shell, words, FOR_EVER, tmp_path / "out", **streams)
    os.close(theirs)
    run.await_executions(1)
    agent = run.await_one("agent")
    os.kill(agent, signal.SIGSTOP)
    os.write(ours, b"\x03")
    said = _read_until(ours, b"interrupt again to leave")
    os.write(ours, b"\x03")
    said += _read_until(ours, b"is being killed meanwhile")
    assert run.process.wait(DEADLINE_SECONDS) == 130
    assert b"Traceback" not in said
    (job,) = shell.jobs()
    assert job["job"].encode() in said
    assert job["state"] == "killed"
    assert is_alive(agent)
    os.kill(agent, signal.SIGCONT)
    place.assert_nothing_left()
    os.close(ours)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read_until(descriptor: int, text: bytes) -> bytes:
    said = b""
    while text not in said:
        said += os.read(descriptor, 65536)
    return said


def test_f36_a_job_that_was_interrupted_is_killed_and_says_what_it_kept(
    place: FaultPlace, shell: Shell, words: Path, tmp_path: Path
) -> None:
    run = start(place, shell, words, SLOW, tmp_path / "out")
    run.await_executions(6)
    run.process.send_signal(signal.SIGINT)
    result = run.end()
    assert result.rc == 130
    assert "bytes, are kept; the same command with --resume goes on from there" in result.stderr
    (job,) = shell.jobs()
    assert (job["state"], job["reason"]) == ("killed", "interrupted")
    assert f"interrupted; {job['job']} was killed" in result.stderr
    assert f"killing the job {job['job']}; interrupt again" in result.stderr
    place.assert_nothing_left()


# --- attach, kill, detach --------------------------------------------------------------------


def test_f37_a_second_client_sees_the_same_state_and_the_same_end(
    place: FaultPlace, shell: Shell, words: Path, tmp_path: Path, expected: Result
) -> None:
    run = start(place, shell, words, SLOW, tmp_path / "out")
    run.await_executions(2)
    job = shell.await_job()
    assert shell.show(job)["state"] == "running"
    assert any(stage["done"] or stage["running"] for stage in shell.show(job)["stages"])
    attached = shell.zmqmr("attach", job)
    assert attached.returncode == 0, attached.stderr
    assert b"Step 1 of 1 reduce" in attached.stderr
    assert f"{job} succeeded".encode() in attached.stderr
    run.assert_same_as(expected)
    assert shell.show(job)["state"] == "succeeded"


def test_f37_an_interrupt_of_the_second_client_leaves_the_job_alone(
    place: FaultPlace, shell: Shell, words: Path, tmp_path: Path, expected: Result
) -> None:
    run = start(place, shell, words, SLOW, tmp_path / "out")
    run.await_executions(2)
    environ = plain_environ({"TMPDIR": str(place.temporary), **shell.settings})
    job = shell.await_job()
    command = [sys.executable, "-m", "zmqmr", "attach", job]
    second = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE)
    assert second.stderr is not None
    second.stderr.readline()  # it has begun to follow
    second.send_signal(signal.SIGINT)
    assert second.wait(DEADLINE_SECONDS) == 130
    assert f"{job} goes on".encode() in second.stderr.read()
    second.stderr.close()
    run.assert_same_as(expected)


def test_f37_kill_ends_a_job_of_another_client(
    place: FaultPlace, shell: Shell, words: Path, tmp_path: Path
) -> None:
    run = start(place, shell, words, FOR_EVER, tmp_path / "out")
    run.await_executions(1)
    job = shell.await_job()
    killed = shell.zmqmr("kill", job[:-3])
    assert killed.returncode == 0, killed.stderr
    run.assert_failed(f"{job} was killed on request", code=130)
    assert shell.zmqmr("attach", job).returncode == 130
    assert shell.jobs()[0]["state"] == "killed"


@pytest.mark.parametrize("frozen", ["client", "coordinator", "agent"])
def test_f37_kill_by_force_ends_a_job_that_does_not_answer(
    place: FaultPlace, shell: Shell, words: Path, tmp_path: Path, frozen: str
) -> None:
    run = start(place, shell, words, FOR_EVER, tmp_path / "out")
    run.await_executions(1)
    job = shell.await_job()
    os.kill(shell.show(job)["processes"][frozen][0], signal.SIGSTOP)
    killed = shell.zmqmr("kill", "--force", job)
    assert killed.returncode == 0, killed.stderr
    assert run.process.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert shell.jobs()[0]["state"] == "killed"
    place.assert_nothing_left()


def test_f37_a_detached_job_goes_on_without_its_client_and_attach_fetches_its_output(
    place: FaultPlace, shell: Shell, words: Path, tmp_path: Path, expected: Result
) -> None:
    job = detached(place, shell, words, SLOW, tmp_path)
    assert shell.show(job)["state"] == "running"
    attached = shell.zmqmr("attach", job)
    assert attached.returncode == 0, attached.stderr
    assert lines(attached.stdout) == expected.lines
    assert shell.show(job)["counters"] == expected.counters
    assert shell.show(job)["fetched"] is True
    place.assert_nothing_left()


def test_f37_a_detached_job_completes_its_output_directory(
    place: FaultPlace, shell: Shell, words: Path, tmp_path: Path, expected: Result
) -> None:
    output = tmp_path / "out"
    job = detached(place, shell, words, ["-o", str(output)], tmp_path)
    attached = shell.zmqmr("attach", job)
    assert (attached.returncode, attached.stdout) == (0, b""), attached.stderr
    assert (output / "_SUCCESS").exists()
    assert lines(b"".join(path.read_bytes() for path in output.glob("part-*"))) == expected.lines
    place.assert_nothing_left()


def test_f37_a_detached_job_that_fails_says_why_to_whoever_asks(
    place: FaultPlace, shell: Shell, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("bad\n")
    job = detached(place, shell, bad, ["--how", "exception", "--times", "9"], tmp_path)
    attached = shell.zmqmr("attach", job)
    assert attached.returncode == 1
    assert b"this record is bad" in attached.stderr
    assert b"this record is bad" in shell.zmqmr("logs", job).stdout
    place.assert_nothing_left()


def test_f36_what_is_wrong_before_the_job_begins_is_said_by_the_command_itself(
    place: FaultPlace, shell: Shell, tmp_path: Path
) -> None:
    done = shell.zmqmr(str(tmp_path / "none.py"), "--detach", module="zmqmr.cli.run")
    assert (done.returncode, done.stdout) == (2, b"")
    assert shell.jobs() == []


# --- lost jobs -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["the client alone", "all at one stroke", "a client with a set-up"])
def test_f37_a_job_that_was_lost_is_resumed(
    place: FaultPlace, shell: Shell, words: Path, tmp_path: Path, expected: Result, how: str
) -> None:
    args = list(SLOW)
    if how == "a client with a set-up":  # files that are made anew each time, in another directory
        (tmp_path / "library").mkdir()
        (tmp_path / "library" / "module.py").write_text("")
        args += ["--dirs", str(tmp_path / "library"), "--setup", "export SET_UP=1"]
    run = start(place, shell, words, args, tmp_path / "out")
    run.await_executions(6)
    job = shell.await_job()
    victims = [run.process.pid]
    if how == "all at one stroke":
        victims += [run.await_one("agent"), run.await_one("coordinator")]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    run.process.wait()
    wait_until(lambda: not place.processes())
    assert shell.jobs()[0]["state"] == "lost"
    assert (tmp_path / "out").exists() is (len(victims) > 1), "the agent removes it, as long as it lives"
    assert shell.zmqmr("attach", job).returncode == 3

    (place.notes / "executions").unlink()
    again = start(place, shell, words, ["--resume", *args], tmp_path / "out")
    result = again.end()
    assert result.rc == 0, result.stderr
    assert f"resuming {job}, which was lost" in result.stderr
    assert "finished tasks" in result.stderr
    assert (result.lines, result.counters) == (expected.lines, expected.counters)
    assert len(again.executions("mapper")) <= 12 - 3, "finished tasks were run again"
    assert [each["state"] for each in shell.jobs()] == ["succeeded", "lost"]
    assert shell.show(job)["resumed_by"] == shell.jobs()[0]["job"]
    assert shell.zmqmr("gc").returncode == 0
    place.assert_nothing_left()
    assert os.listdir(place.temporary) == []


def test_f37_the_same_command_with_resume_takes_up_its_newest_failed_run(
    place: FaultPlace, shell: Shell, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("bad\n")
    args = ["--how", "exception", "--times", "4"]
    first = start(place, shell, text, args, tmp_path / "out")
    assert first.end().rc == 1
    text.write_text("good\n")
    second = start(place, shell, text, ["--resume", *args], tmp_path / "out")
    result = second.end()
    assert result.rc == 0, result.stderr
    assert f"resuming {shell.jobs()[1]['job']}, which failed" in result.stderr
    assert result.lines == Counter({b'"good"\t1': 1})
    assert "used again" not in result.stderr, "there was nothing to keep"
    third = start(place, shell, text, ["--resume", *args], tmp_path / "out3")
    assert third.end().rc == 2
    place.assert_nothing_left()


def test_f37_a_job_is_resumed_by_its_id_alone_in_its_own_directory(
    place: FaultPlace, shell: Shell, words: Path, tmp_path: Path, expected: Result
) -> None:
    job = detached(place, shell, words, FOR_EVER, tmp_path)
    killed = shell.zmqmr("kill", job)
    assert killed.returncode == 0, killed.stderr
    record = shell.show(job)
    path = shell.state / "zmqmr" / "jobs" / f"{job}.json"
    patient = record["arguments"]
    patient[patient.index("--pause") + 1] = "0"
    path.write_text(json.dumps({**json.loads(path.read_text()), "arguments": patient}))
    done = shell.zmqmr("--resume", job, module="zmqmr.cli.run")
    assert done.returncode == 0, done.stderr
    assert lines(done.stdout) == expected.lines
    assert not is_alive(record["processes"]["client"][0])
