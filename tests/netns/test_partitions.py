"""Faults of the network and of hosts while a job runs: the answer stays that of mrjob's inline runner.

Heartbeats are quick here: a worker is lost after 3 seconds, and begins anew when it has heard nothing for 6.
"""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from differential.harness import Result, run_stock
from faults.nemesis import WORDS, is_alive
from netns.conftest import Ring
from process.places import wait_until

EXIT_UNREACHABLE = 3
SLOW_MAPS = ("--pause", "0.02")  # about half a second for each map task


def await_begun(ring: Ring, attempts: int = 4) -> None:
    wait_until(lambda: len(ring.executions()) >= attempts, ring.cluster.story)


def await_gone(ring: Ring, name: str) -> None:
    """Until the coordinator has given a worker up."""
    wait_until(lambda: name not in ring.cluster.workers(), ring.cluster.story)


def test_without_a_fault_each_task_runs_once(ring: Ring, expected: Result) -> None:
    job = ring.submit()
    ended = job.assert_same_as(expected, ring.cluster)
    assert ended["failures"] == [] and ended["notices"] == []
    assert len(ring.executions()) == len(set(ring.executions()))


def test_f6_a_host_that_dies_without_a_word_is_replaced(ring: Ring, expected: Result) -> None:
    job = ring.submit(*SLOW_MAPS)
    await_begun(ring)
    ring.wires.cut("w1")
    try:
        os.killpg(ring.cluster.services["w1"].pid(), signal.SIGKILL)
        job.assert_same_as(expected, ring.cluster)
    finally:
        ring.wires.mend("w1")
    assert ring.cluster.await_ended("w1") == -signal.SIGKILL
    ring.cluster.again("w1")  # it removes what its earlier life has left
    ring.cluster.await_workers("w1")


def test_f10_a_worker_behind_a_partition_is_given_up_and_comes_back_as_a_new_one(
    ring: Ring, expected: Result
) -> None:
    job = ring.submit(*SLOW_MAPS)
    await_begun(ring)
    ring.wires.cut("w1")
    try:
        await_gone(ring, "w1")
    finally:
        ring.wires.mend("w1")
    assert ring.cluster.await_ended("w1") == EXIT_UNREACHABLE
    ring.cluster.again("w1")
    ring.cluster.await_workers("w1")
    job.assert_same_as(expected, ring.cluster)


@pytest.mark.parametrize("ring", [{"ZMQMR_ANSWER_SECONDS": "600"}], indirect=True)
def test_f10_attempts_do_not_wait_for_a_worker_that_was_given_up(ring: Ring, expected: Result) -> None:
    """They would wait for ten minutes, and the job is given one: its client says that it hangs."""
    job = ring.submit(*SLOW_MAPS)
    await_begun(ring)
    ring.wires.cut("w1")
    try:
        job.assert_same_as(expected, ring.cluster)
    finally:
        ring.wires.mend("w1")
    assert ring.cluster.await_ended("w1") == EXIT_UNREACHABLE


def test_f11_a_worker_that_hears_but_is_not_heard_ends_by_itself(ring: Ring, expected: Result) -> None:
    job = ring.submit(*SLOW_MAPS)
    await_begun(ring)
    ring.wires.silence("w1", "coordinator")
    try:
        assert ring.cluster.await_ended("w1") == EXIT_UNREACHABLE
        assert "has not answered" in ring.cluster.services["w1"].said()
        job.assert_same_as(expected, ring.cluster)
    finally:
        ring.wires.unsilence("w1", "coordinator")
    ring.cluster.again("w1")
    ring.cluster.await_workers("w1")


def test_f12_workers_that_do_not_reach_each_other_leave_the_work_to_one_that_reaches_all(
    ring: Ring, expected: Result
) -> None:
    ring.wires.silence("w0", "w1")
    try:
        job = ring.submit(split=2400)
        job.assert_same_as(expected, ring.cluster)
    finally:
        ring.wires.unsilence("w0", "w1")
    tasks = [attempt.rpartition("_")[0] for attempt in ring.executions("mapper")]
    assert len(set(tasks)) < len(tasks), "no task was run elsewhere"


def test_f12_a_job_whose_workers_do_not_reach_each_other_at_all_ends_right_or_says_which_hosts(
    ring: Ring, expected: Result
) -> None:
    """A task that happens to be tried on every owner of its partitions delivers all; four tries are all."""
    pairs = [("w0", "w1"), ("w1", "w2"), ("w2", "w0")]
    for one, other in pairs:
        ring.wires.silence(one, other)
    try:
        job = ring.submit(split=8000)
        ended = job.end()
    finally:
        for one, other in pairs:
            ring.wires.unsilence(one, other)
    if ended["state"] == "succeeded":
        job.assert_same_as(expected, ring.cluster)
    else:
        named = [name for name in ("w0", "w1", "w2") if f"host {name}" in ended["reason"]]
        assert ended["state"] == "failed" and len(named) == 2, ended["reason"]


def test_f13_a_slow_link_loses_no_worker(ring: Ring, tmp_path: Path) -> None:
    text = tmp_path / "much.txt"
    text.write_text("".join(f"{n * 7919 % 100003:x} {n * 104729 % 100003:x} x\n" for n in range(16_000)))
    expected = run_stock(WORDS, (), [text])
    ring.words = text
    ring.wires.slow("w2", "200kbit")
    try:
        job = ring.submit(split=30_000)
        ended = job.assert_same_as(expected, ring.cluster)
    finally:
        ring.wires.run("w2", "tc", "qdisc", "del", "dev", "eth0", "root")
    assert ended["failures"] == []
    assert len(ring.executions()) == len(set(ring.executions()))
    assert all(service.process.poll() is None for service in ring.cluster.services.values())


def test_f4_a_worker_that_was_stopped_is_refused_when_it_goes_on_and_begins_anew(
    ring: Ring, expected: Result
) -> None:
    job = ring.submit(*SLOW_MAPS)
    await_begun(ring)
    agent = ring.cluster.services["w1"].pid()
    os.kill(agent, signal.SIGSTOP)
    try:
        await_gone(ring, "w1")
    finally:
        os.kill(agent, signal.SIGCONT)
    assert ring.cluster.await_ended("w1") == EXIT_UNREACHABLE
    wait_until(lambda: not is_alive(agent))
    ring.cluster.again("w1")
    job.assert_same_as(expected, ring.cluster)


def test_f14_an_attempt_on_a_slow_host_is_overtaken_by_one_on_another(ring: Ring, expected: Result) -> None:
    """So slow that it does nothing at all, while its agent lives."""
    job = ring.submit("--pause", "0.01")
    await_begun(ring, 6)
    slow, process = next(each for each in reversed(ring.processes("mapper")) if is_alive(each[1]))
    os.kill(process, signal.SIGSTOP)
    ended = job.assert_same_as(expected, ring.cluster)
    wait_until(lambda: not is_alive(process))
    assert ended["failures"] == []
    tasks = Counter(attempt.rpartition("_")[0] for attempt in ring.executions("mapper"))
    assert [task for task, times in tasks.items() if times > 1] == [slow.rpartition("_")[0]]
    assert max(tasks.values()) == 2
    assert set(ring.cluster.workers()) == {"w0", "w1", "w2"}, "no worker is lost for it"


def test_f7_a_coordinator_that_was_killed_takes_the_job_up_where_it_was(ring: Ring, expected: Result) -> None:
    job = ring.submit(*SLOW_MAPS)
    await_begun(ring, 6)
    os.kill(ring.cluster.services["coordinator"].pid(), signal.SIGKILL)
    ring.cluster.again("coordinator")
    job.assert_same_as(expected, ring.cluster)
    assert len(ring.executions()) == len(set(ring.executions()))


def test_a_worker_that_is_drained_while_a_job_runs_leaves_without_a_loss(
    ring: Ring, expected: Result
) -> None:
    job = ring.submit(*SLOW_MAPS)
    await_begun(ring)
    drained = ring.cluster.command("drain", "w1", "--wait", "60")
    assert drained.returncode == 0, drained.stderr
    os.kill(ring.cluster.services["w1"].pid(), signal.SIGTERM)
    assert ring.cluster.await_ended("w1") == 0
    await_gone(ring, "w1")
    there = ring.cluster.command("workers", "w0", "w1", "--wait", "1")
    assert there.returncode == 1 and "not there and ready: w1\n" in there.stderr
    ended = job.assert_same_as(expected, ring.cluster)
    assert ended["failures"] == []
    assert len(ring.executions()) == len(set(ring.executions()))


def test_a_worker_whose_drain_is_cancelled_takes_work_again(ring: Ring, expected: Result) -> None:
    everyone = ("w0", "w1", "w2")
    one = ring.cluster.command("drain", "w0")
    assert (one.returncode, one.stderr) == (0, "")
    drained = ring.cluster.command("drain", *everyone)
    assert drained.returncode == 0
    assert "no worker is left to take work" in drained.stderr, drained.stderr
    assert ring.cluster.command("workers", "w2").returncode == 1, "it is to leave"
    assert ring.cluster.command("drain", "--cancel", *everyone).returncode == 0
    assert ring.cluster.command("workers", *everyone, "--wait", "10").returncode == 0
    assert ring.submit().assert_same_as(expected, ring.cluster)["failures"] == []
