"""Agents that are killed or frozen while they have attempts and records."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from differential.harness import Result
from faults.nemesis import MANY_TASKS, FaultPlace, Run, chance, is_alive, stop_for
from process.places import wait_until

BRISK = MANY_TASKS | {"ZMQMR_HEARTBEAT_SECONDS": "0.2"}  # a silent worker is given up after a second
SLOW = ["--pause", "0.01"]


@pytest.mark.parametrize("where", ["mapper", "reducer"])
def test_f2_a_killed_agent_takes_its_children_along_and_the_job_goes_on(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result, where: str
) -> None:
    pause = "0.01" if where == "mapper" else "0.05"
    run = Run(place, tmp_path / "out", [words], ["--pause", pause, "--where", where])
    run.await_executions(3 if where == "mapper" else 1, where)
    agent, executor, attempts = run.await_one("agent"), run.executor(), run.attempts()
    os.kill(agent, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, [executor, *attempts])), run.story)
    result = run.assert_same_as(expected)
    assert "failed on host" not in result.stderr, "a lost worker was charged to a task"


def test_f2_agents_killed_at_random_moments(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    random = chance(2)
    run = Run(place, tmp_path / "out", [words], SLOW)
    for _ in range(2):  # the third loss of a job's data is its end
        agent = run.await_one("agent")
        time.sleep(random.uniform(0, 0.6))
        os.kill(agent, signal.SIGKILL)
        wait_until(lambda gone=agent: run.agent() not in (0, gone) or run.process.poll() is not None)
    run.assert_same_as(expected)


def test_f2_a_job_whose_data_is_lost_again_and_again_ends(
    place: FaultPlace, words: Path, tmp_path: Path
) -> None:
    run = Run(place, tmp_path / "out", [words], ["--pause", "0.1"])
    for _ in range(3):
        before = len(run.executions())
        run.await_executions(before + 2)
        os.kill(run.await_one("agent"), signal.SIGKILL)
    run.assert_failed("3 workers were lost")


def test_f3_an_agent_that_is_silent_for_less_than_the_timeout_loses_nothing(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    run = Run(place, tmp_path / "out", [words], SLOW, MANY_TASKS | {"ZMQMR_HEARTBEAT_SECONDS": "0.5"})
    run.await_executions(3)
    stop_for(run.await_one("agent"), 1.0)
    run.assert_same_as(expected)
    launches = Counter(task for task, _, _ in run.executions())
    assert set(launches.values()) == {1}, "a task was launched twice"


def test_f4_an_agent_that_is_silent_for_too_long_is_superseded(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    run = Run(place, tmp_path / "out", [words], SLOW, BRISK)
    run.await_executions(3)
    agent, executor, attempts = run.await_one("agent"), run.executor(), run.attempts()
    stop_for(agent, 2.0)
    wait_until(lambda: not any(map(is_alive, [agent, executor, *attempts])), run.story)
    result = run.assert_same_as(expected)
    assert "failed on host" not in result.stderr, "a lost worker was charged to a task"


def test_f4_a_frozen_executor_is_replaced(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    """Only missing progress tells, since its agent is alive; it cannot kill its attempts, so it goes too."""
    run = Run(place, tmp_path / "out", [words], [*SLOW, "-D", "mapreduce.task.timeout=700"], BRISK)
    run.await_executions(2)
    executor = run.await_one("executor")
    os.kill(executor, signal.SIGSTOP)
    result = run.assert_same_as(expected)
    assert "mapreduce.task.timeout" in result.stderr
    assert not is_alive(executor)
