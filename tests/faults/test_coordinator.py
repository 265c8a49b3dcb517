"""Coordinators that are killed, clients that go away, strangers at the door, many jobs, many inputs."""

import os
import pty
import signal
import socket
import struct
import time
from collections import Counter
from pathlib import Path

import pytest
import zmq
from differential.harness import Result
from faults.nemesis import (
    MANY_TASKS,
    FaultPlace,
    Run,
    chance,
    memory_bytes,
    oracle,
    peak_memory,
    stop_for,
)
from process.places import wait_until

from zmqmr.client.local import worker_name
from zmqmr.messages import Attach, Heartbeat, JobSpec, Register, Submit, encode

MIB = 1024**2
SLOW = ["--pause", "0.01"]


# --- the coordinator's own death -------------------------------------------------------------


@pytest.mark.parametrize("seed", [71, 72, 73])
def test_f7_a_coordinator_killed_at_random_moments_loses_no_finished_task(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result, seed: int
) -> None:
    """Four moments a run; the client starts a coordinator again five times at most."""
    random = chance(seed)
    run = Run(place, tmp_path / "out", [words], ["--pause", "0.03", "-D", "mapreduce.job.reduces=5"])
    kills = 0
    while kills < 4 and run.process.poll() is None:
        coordinator = run.coordinator()
        if not coordinator:
            time.sleep(0.01)
            continue
        time.sleep(random.uniform(0, 0.7))
        os.kill(coordinator, signal.SIGKILL)
        kills += 1
        wait_until(lambda gone=coordinator: run.coordinator() != gone or run.process.poll() is not None)
    run.assert_same_as(expected)
    assert kills == 4
    again = [task for task, count in Counter(task for task, _, _ in run.executions()).items() if count > 1]
    assert not again, "tasks were run again though their worker lived"


def test_f7_coordinator_and_agent_killed_together(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    run = Run(place, tmp_path / "out", [words], SLOW)
    run.await_executions(4)
    for pid in (run.await_one("coordinator"), run.await_one("agent")):
        os.kill(pid, signal.SIGKILL)
    run.assert_same_as(expected)


def test_f7_a_coordinator_that_is_frozen_goes_on(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    run = Run(place, tmp_path / "out", [words], SLOW, MANY_TASKS | {"ZMQMR_HEARTBEAT_SECONDS": "0.2"})
    run.await_executions(2)
    stop_for(run.await_one("coordinator"), 2.0)
    run.assert_same_as(expected)


def test_f7_a_damaged_journal_costs_work_but_no_record(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    run = Run(place, tmp_path / "out", [words], SLOW)
    run.await_executions(4)
    (journal,) = run.spilled("/journal") or run.spilled("journal")
    os.kill(run.await_one("coordinator"), signal.SIGKILL)
    for path in run.spilled("journal-wal"):
        os.truncate(path, path.stat().st_size // 2)
    assert journal.exists()
    run.assert_same_as(expected)


def test_f9_a_coordinator_that_ends_again_and_again_is_reported(
    place: FaultPlace, words: Path, tmp_path: Path
) -> None:
    run = Run(place, tmp_path / "out", [words], ["--pause", "0.2"])
    killed: set[int] = set()

    def kill_it() -> bool:
        pid = run.coordinator()
        if pid and pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        return run.process.poll() is not None

    wait_until(kill_it, run.story)
    run.assert_failed("coordinator", "6 times", "signal 9", code=3)


def test_f9_a_specification_that_nothing_can_be_made_of_harms_no_other_job(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    """Either it is refused, or its coordinator ends non-zero and is started again: never a deadlock."""
    run = Run(place, tmp_path / "out", [words], SLOW)
    run.await_executions(2)
    with Stranger(run) as stranger:
        stranger.send(encode(Submit(_empty_specification(tmp_path), "0")))
        run.assert_same_as(expected)


def _empty_specification(folder: Path) -> JobSpec:
    return JobSpec(
        job="nothing",
        label="",
        script="x.py",
        task_args=(),
        steps=(),
        splits=(),
        input_mode="lines",
        output_dir=str(folder),
        step_output_dir="",
        bundle="/no/such/bundle",
        bundle_sha256="",
        cmdenv={},
    )


# --- strangers -------------------------------------------------------------------------------


class Stranger:
    """A peer of the coordinator that speaks ZeroMQ and nothing sensible."""

    def __init__(self, run: Run, identity: bytes = b"client:stranger"):
        self._context = zmq.Context()
        (path,) = [path for path in run.sockets() if path.name == "coordinator"]
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.IDENTITY, identity)
        self.socket.connect(f"ipc://{path}")

    def __enter__(self) -> "Stranger":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self._context.term()

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)


def _assert_unaffected(run: Run, expected: Result) -> None:
    result = run.assert_same_as(expected)
    assert "started again" not in result.stderr
    assert all(attempt == 0 for _, attempt, _ in run.executions())


def test_f16_raw_garbage_on_the_sockets_changes_nothing(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    random = chance(16)
    run = Run(place, tmp_path / "out", [words], SLOW)
    run.await_executions(2)
    paths = run.sockets()
    assert {path.name.partition("-")[0] for path in paths} == {"coordinator", "shuffle"}
    greeting = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00NULL".ljust(64, b"\0")
    openings = [b"", greeting[:11], greeting, greeting + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x04PUSH"]
    huge = b"\x02" + struct.pack(">Q", 2**62) + b"x" * 100
    for path in paths:
        for opening in openings:
            for rest in (random.randbytes(500), b"\0" * 300, huge, b""):
                with socket.socket(socket.AF_UNIX) as raw:
                    raw.connect(str(path))
                    try:
                        raw.sendall(opening + rest)
                    except (BrokenPipeError, ConnectionResetError):
                        pass  # it has been shown the door already
    _assert_unaffected(run, expected)


def test_f16_frames_that_are_no_messages_change_nothing(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    """Garbage, truncated messages, and messages of a worker from one that is none."""
    random = chance(17)
    run = Run(place, tmp_path / "out", [words], SLOW)
    run.await_executions(2)
    sensible = [
        encode(Heartbeat(5)),
        encode(Attach("no-such-job")),
        encode(Register(worker_name(), 6, "host", 1, 4, "ipc:///no/such", "0")),
    ]
    with Stranger(run) as stranger, Stranger(run, f"{worker_name()}:1".encode()) as impostor:
        for peer in (stranger, impostor):
            for message in sensible:
                for cut in range(0, len(message) + 1, 3):
                    peer.send(message[:cut])
            for _ in range(100):
                peer.send(random.randbytes(random.randrange(200)))
            peer.send(b"\x91" * 100_000)
            peer.send(b"a", b"b", b"c")
            peer.send(bytes(MIB))
        _assert_unaffected(run, expected)


def test_f16_shuffle_frames_that_are_none_change_nothing(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    random = chance(18)
    run = Run(place, tmp_path / "out", [words], SLOW)
    run.await_executions(2)
    context = zmq.Context()
    (path,) = [path for path in run.sockets() if path.name.startswith("shuffle")]
    with context.socket(zmq.PUSH) as push:
        push.set(zmq.LINGER, 0)
        push.connect(f"ipc://{path}")
        for count in (1, 2, 3):
            for _ in range(50):
                push.send_multipart([random.randbytes(random.randrange(100)) for _ in range(count)])
        _assert_unaffected(run, expected)
    context.term()


# --- clients ---------------------------------------------------------------------------------


def test_f17_a_client_that_does_not_read_fills_nobodys_memory(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    run = Run(place, tmp_path / "out", [words], SLOW)
    run.await_executions(1)
    coordinator = run.await_one("coordinator")
    before = memory_bytes(coordinator)
    stop_for(run.process.pid, 2.5)
    assert memory_bytes(coordinator) - before < 20 * MIB
    run.assert_same_as(expected)


def test_f36_control_c_at_the_terminal_ends_the_job(place: FaultPlace, words: Path, tmp_path: Path) -> None:
    assert _control_c(place, words, tmp_path, wait=None) == 130


@pytest.mark.parametrize("wait", [0.0, 0.003, 0.01, 0.03])
def test_f36_a_second_control_c_leaves_nothing_either(
    place: FaultPlace, words: Path, tmp_path: Path, wait: float
) -> None:
    code = _control_c(place, words, tmp_path, wait)
    assert code in (130, -signal.SIGINT)  # the latter when it comes after the interpreter's last line


def _control_c(place: FaultPlace, words: Path, tmp_path: Path, wait: float | None) -> int:
    """Type Control-C at a terminal of the run's own, and again after `wait` seconds unless it is None;
    the exit status, when nothing of the run is left."""
    ours, theirs = pty.openpty()
    run = Run(
        place,
        tmp_path / "out",
        [words],
        ["--pause", "0.2"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    run.await_executions(2)
    os.write(ours, b"\x03")
    if wait is not None:
        time.sleep(wait)
        os.write(ours, b"\x03")
    said = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:
            break  # the last process has closed the terminal
        said += block
    os.close(ours)
    code = run.process.wait()
    place.assert_nothing_left()
    assert b"Traceback" not in said, said.decode()
    assert not list(tmp_path.glob("out/part-*"))
    return code


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_f36_a_client_that_is_ended_leaves_nothing(
    place: FaultPlace, words: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = Run(place, tmp_path / "out", [words], ["--pause", "0.2"])
    run.await_executions(2)
    os.kill(run.process.pid, number)
    result = run.end()
    assert result.rc == (-number if number == signal.SIGKILL else 128 + number)
    assert "Traceback" not in result.stderr
    place.assert_nothing_left()
    assert result.parts == {}


def test_f36_a_client_killed_together_with_its_agent_leaves_no_process(
    place: FaultPlace, words: Path, tmp_path: Path
) -> None:
    """Nobody is left who could remove the files; the processes go all the same."""
    run = Run(place, tmp_path / "out", [words], ["--pause", "0.2"])
    run.await_executions(2)
    for pid in (run.process.pid, run.await_one("agent")):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not place.processes(), run.story)


# --- several jobs, many inputs, a port in use ------------------------------------------------


def test_f34_an_output_directory_in_use_is_refused(place: FaultPlace, words: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    run = Run(place, out, [words])
    result = run.end()
    assert result.rc == 2, result.stderr
    assert str(out) in result.stderr
    assert result.files == {"precious": b"mine"}
    assert run.executions() == []
    place.assert_nothing_left()


def test_f35_five_jobs_at_once_do_not_disturb_each_other(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    runs = [Run(place, tmp_path / f"out-{n}", [words]) for n in range(5)]
    results = [run.end() for run in runs]
    place.assert_nothing_left()
    for result in results:
        assert result.rc == 0, result.stderr
        assert result.lines == expected.lines
        assert result.counters == expected.counters


def test_f35_two_jobs_cannot_have_the_same_output(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    out = tmp_path / "out"
    first = Run(place, out, [words], SLOW)
    first.await_executions(1)
    second = Run(place, out, [words])
    refused = second.end()
    assert refused.rc == 2, refused.stderr
    assert str(out) in refused.stderr
    first.assert_same_as(expected)


def test_f40_ten_thousand_small_inputs(place: FaultPlace, tmp_path: Path) -> None:
    """The oracle reads them as one file: mrjob's own runner takes long for each."""
    folder, whole = tmp_path / "inputs", tmp_path / "whole.txt"
    folder.mkdir()
    lines = [f"w{number % 7} {number % 3}\n" for number in range(10_000)]
    whole.write_text("".join(lines))
    for number, line in enumerate(lines):
        (folder / f"{number:05d}").write_text(line)
    run = Run(place, tmp_path / "out", [folder], settings={})
    peaks = peak_memory(run)
    run.assert_same_as(oracle([whole]))
    assert 0 < peaks["coordinator"] < 150 * MIB, peaks
    assert len(run.executions("mapper")) < 1000


def test_f47_a_status_port_in_use_stops_no_job(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        run = Run(place, tmp_path / "out", [words], settings=MANY_TASKS | {"ZMQMR_STATUS_PORT": port})
        run.assert_same_as(expected)
