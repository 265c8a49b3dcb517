"""Attempts that are killed, end early, hang, flood or meet a bad record."""

import os
import signal
from pathlib import Path

import pytest
from differential.harness import Result
from faults.nemesis import (
    MANY_TASKS,
    FaultPlace,
    Run,
    chance,
    is_alive,
    memory_bytes,
    oracle,
)
from process.places import wait_until

MIB = 1024**2


@pytest.fixture
def with_a_bad_one(tmp_path: Path) -> Path:
    """A few lines, the word "bad" first on one of them."""
    path = tmp_path / "some.txt"
    path.write_text("good day\nfine day\nbad day\nlast day\n")
    return path


@pytest.mark.parametrize("where", ["mapper", "reducer"])
def test_f1_a_killed_attempt_is_run_again(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result, where: str
) -> None:
    run = Run(place, tmp_path / "out", [words], ["--where", where, "--pause", "0.01"])
    run.await_executions(1, where)
    task, _, pid = run.executions(where)[0]
    os.kill(pid, signal.SIGKILL)
    result = run.assert_same_as(expected)
    assert [attempt for name, attempt, _ in run.executions(where) if name == task] == [0, 1]
    assert "SIGKILL" in result.stderr


def test_f1_many_killed_attempts_at_random_moments(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    random = chance(1)
    run = Run(place, tmp_path / "out", [words], ["--pause", "0.01"])
    victims: set[str] = set()
    for _ in range(8):
        run.await_executions(min(len(run.executions()) + 1, 12))
        candidates = [each for each in run.executions() if each[0] not in victims and is_alive(each[2])]
        if candidates:
            task, _, pid = random.choice(candidates)
            victims.add(task)
            os.kill(pid, signal.SIGKILL)
    run.assert_same_as(expected)
    assert victims
    for task in victims:
        assert sum(name == task for name, _, _ in run.executions()) == 2


def test_f1_an_executor_that_is_killed_is_replaced(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    run = Run(place, tmp_path / "out", [words], ["--pause", "0.01"])
    run.await_executions(3)
    executor, attempts = run.await_one("executor"), run.attempts()
    os.kill(executor, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, attempts)))
    run.assert_same_as(expected)


@pytest.mark.parametrize("where", ["mapper", "reducer"])
@pytest.mark.parametrize("how", ["exit_0", "segfault", "sys_exit", "abort", "exception"])
def test_f25_f26_an_attempt_that_ends_itself_once_costs_only_that_attempt(
    place: FaultPlace, with_a_bad_one: Path, tmp_path: Path, how: str, where: str
) -> None:
    run = Run(place, tmp_path / "out", [with_a_bad_one], ["--how", how, "--where", where], {})
    run.assert_same_as(oracle([with_a_bad_one]))
    assert sorted(attempt for _, attempt, _ in run.executions(where)) == [0, 1]


def test_f25_an_attempt_that_always_ends_early_is_never_taken_for_a_short_one(
    place: FaultPlace, with_a_bad_one: Path, tmp_path: Path
) -> None:
    run = Run(place, tmp_path / "out", [with_a_bad_one], ["--how", "exit_0", "--times", "99"], {})
    run.assert_failed("before the end of its input", "failed 4 times")
    assert [attempt for _, attempt, _ in run.executions("mapper")] == [0, 1, 2, 3]


def test_f23_a_bad_record_is_explained_once(place: FaultPlace, with_a_bad_one: Path, tmp_path: Path) -> None:
    run = Run(place, tmp_path / "out", [with_a_bad_one], ["--how", "exception", "--times", "99"], {})
    offset = with_a_bad_one.read_bytes().index(b"bad")
    says = [with_a_bad_one, f"{offset}", "bad day", "ValueError: this record is bad", "in exception"]
    result = run.assert_failed(*says, "map-0-00000", "Attempt 4 of 4")
    assert result.stderr.count("Traceback (most recent call last)") == 1


def test_f28_a_deaf_endless_loop_is_killed_with_all_it_started(
    place: FaultPlace, with_a_bad_one: Path, tmp_path: Path
) -> None:
    """The loop ignores TERM; its grandchild has a session of its own."""
    args = ["--how", "hang", "-D", "mapreduce.task.timeout=600"]
    settings = {"ZMQMR_KILL_SECONDS": "0.3", "ZMQMR_PROGRESS_SECONDS": "0.1"}
    run = Run(place, tmp_path / "out", [with_a_bad_one], args, settings)
    run.await_executions(1)
    result = run.assert_same_as(oracle([with_a_bad_one]))
    assert "mapreduce.task.timeout" in result.stderr
    assert [attempt for _, attempt, _ in run.executions("mapper")] == [0, 1]


def test_f28_a_grandchild_goes_when_its_attempt_does(
    place: FaultPlace, with_a_bad_one: Path, tmp_path: Path
) -> None:
    """Gone while the job still runs, not only with its last process."""
    args = ["--how", "hang", "-D", "mapreduce.task.timeout=600", "--where", "reducer", "--pause", "0.3"]
    settings = {"ZMQMR_KILL_SECONDS": "0.3", "ZMQMR_PROGRESS_SECONDS": "0.1"}
    run = Run(place, tmp_path / "out", [with_a_bad_one], args, settings)

    def sleepers() -> list[int]:
        return [pid for pid, command in place.processes().items() if command.startswith("sleep")]

    wait_until(lambda: sleepers() or run.process.poll() is not None, run.story)
    assert sleepers()
    run.await_executions(2, "reducer")
    assert run.process.poll() is None
    assert sleepers() == []
    run.assert_same_as(oracle([with_a_bad_one]))


def test_f30_a_flood_on_standard_error_fills_nobodys_memory(
    place: FaultPlace, with_a_bad_one: Path, tmp_path: Path
) -> None:
    """32 MB of noise; the processes that read it keep 1 MB."""
    run = Run(place, tmp_path / "out", [with_a_bad_one], ["--how", "flood"], {})
    peaks = [0]
    while run.process.poll() is None:
        lasting = [run.coordinator(), run.agent(), run.executor()]
        peaks.append(max(memory_bytes(pid) for pid in lasting))
    result = run.assert_same_as(oracle([with_a_bad_one]))
    assert max(peaks) < 60 * MIB
    assert len(result.stderr) < 3 * MIB


def test_f1_nothing_goes_wrong_when_nothing_is_done(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    """What the other tests of this folder compare with: every task runs once."""
    run = Run(place, tmp_path / "out", [words], settings=MANY_TASKS)
    run.assert_same_as(expected)
    executions = run.executions()
    assert len(run.executions("mapper")) > 8 and len(run.executions("reducer")) > 1
    assert all(attempt == 0 for _, attempt, _ in executions)
