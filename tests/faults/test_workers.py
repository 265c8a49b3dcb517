"""Agents that are killed or frozen while they have attempts and records."""

import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest
from differential.harness import Result
from faults.nemesis import MANY_TASKS, WORDS, FaultPlace, Run, chance, is_alive, oracle, stop_for
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


def test_f2_the_next_agent_runs_no_finished_task_again(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    run = Run(place, tmp_path / "out", [words], [*SLOW, "--num-cores", "2"])
    run.await_executions(9, "mapper")
    os.kill(run.await_one("agent"), signal.SIGKILL)
    run.assert_same_as(expected)
    launches = Counter(task for task, _, _ in run.executions("mapper"))
    again = [task for task, times in launches.items() if times > 1]
    assert len(again) <= 4, f"more than two that ran and two that ended were run again: {again}"


def test_f2_tasks_of_the_next_agent_import_what_those_of_the_first_did(
    place: FaultPlace, words: Path, tmp_path: Path
) -> None:
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries" / "only_on_pythonpath.py").write_text("FACTOR = 3\n")
    job = tmp_path / "job.py"
    job.write_text(WORDS.read_text().replace("import os\n", "import os\nimport only_on_pythonpath\n", 1))
    paths = [str(tmp_path / "libraries"), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = MANY_TASKS | {"PYTHONPATH": os.pathsep.join(paths)}
    run = Run(place, tmp_path / "out", [words], ["--tell", place.notes, *SLOW], settings, job)
    run.await_executions(3)
    os.kill(run.await_one("agent"), signal.SIGKILL)
    result = run.end()
    assert result.rc == 0, result.stderr


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


def test_f1_a_hangup_that_reaches_the_executor_is_not_its_business(
    place: FaultPlace, words: Path, tmp_path: Path, expected: Result
) -> None:
    """A terminal that closes says so to every process that began in it."""
    run = Run(place, tmp_path / "out", [words], SLOW)
    run.await_executions(2)
    executor = run.await_one("executor")
    os.kill(executor, signal.SIGHUP)
    run.await_executions(4)
    assert is_alive(executor)
    assert "Traceback" not in run.assert_same_as(expected).stderr


def test_f5_an_agent_that_hangs_while_its_sockets_live_is_given_up_and_replaced(
    place: FaultPlace, tmp_path: Path
) -> None:
    """It hangs for real: the repro bundle that it writes of a failed attempt is a pipe that nobody reads."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"w{n % 17} v{n % 5}\n" for n in range(150)) + "bad luck\n")
    state = tmp_path / "state"
    settings = BRISK | {"ZMQMR_STATE_DIRECTORY": str(state), "ZMQMR_PROGRESS_SECONDS": "0.1"}
    run = Run(place, tmp_path / "out", [text], [*SLOW, "--how", "exception"], settings)
    agent = run.await_one("agent")
    wait_until(lambda: any(place.temporary.glob("**/agent/*/work")), run.story)
    job = next(place.temporary.glob("**/agent/*/work")).parent.name
    (state / "repro").mkdir(parents=True)
    for number in range(10):
        os.mkfifo(state / "repro" / f"{job}-map-0-{number:05d}.tar.part")
    (shuffle,) = (path for path in run.sockets() if path.name == "shuffle-1")
    given_up = "does not answer and is ended"
    greeted = 0
    while given_up not in run.said():
        assert run.process.poll() is None, run.story()
        greeted = max(greeted, _greeting(shuffle))
        time.sleep(0.05)
    assert greeted, "its sockets were dead too"
    wait_until(lambda: not is_alive(agent), run.story)
    run.assert_same_as(oracle([text]))


def _greeting(path: Path) -> int:
    """How many bytes ZeroMQ says to one who connects."""
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(0.2)
        try:
            stranger.connect(str(path))
            return len(stranger.recv(64))
        except OSError:
            return 0


def test_f29_a_task_that_takes_its_agent_down_each_time_ends_the_job(
    place: FaultPlace, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "".join(f"w{n % 17} v{n % 5}\n" for n in range(300)) + "bad luck\n" + "more words\n" * 300
    )
    args = ["--how", "kill_agent", "--times", "9", "--num-cores", "1"]
    run = Run(place, tmp_path / "out", [text], args)
    result = run.assert_failed("3 workers were lost while they ran map-0-")
    launched = [task for task, _, _ in run.executions("mapper")]
    number = int(launched[-1].rpartition("_")[2])
    assert f"while they ran map-0-{number:05d}" in result.stderr
    assert launched.count(launched[-1]) == 3
    assert number > 0, "no task ran before it, and queued ones behind it cannot be told apart"
