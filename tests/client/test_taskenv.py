"""The environment of a task, compared with what mrjob's own local runner computes."""

import os
from pathlib import Path
from typing import Any

import pytest

from zmqmr import hook
from zmqmr.messages import InputFile, JobSpec, Piece, Step, Substep
from zmqmr.worker.taskenv import task_env, with_environ

hook.install()

FILE = InputFile("/data/in put.txt", 900, 1)
KINDS: list[Any] = ["mapper", "combiner", "reducer"]


def spec(jobconf: dict[str, str] | None = None, steps: int = 1, **changes: Any) -> JobSpec:
    script = Substep("script")
    step = Step(script, script, script, 1, jobconf or {})
    values: dict[str, Any] = dict(
        job="job.me.1", label="job", script="job.py", task_args=(), steps=(step,) * steps, splits=(),
        input_mode="lines", output_dir="/out", step_output_dir="", bundle="/b", bundle_sha256="", cmdenv={},
    )  # fmt: skip
    return JobSpec(**values | changes)


@pytest.mark.parametrize("kind", KINDS)
def test_it_holds_what_mrjobs_local_runner_simulates(tmp_path: Path, kind: Any):
    from mrjob.local import LocalMRJobRunner

    script = tmp_path / "job.py"
    script.write_text("")
    (tmp_path / "side.txt").write_text("")
    steps = [{"type": "streaming", "mapper": {"type": "script"}, "reducer": {"type": "script"}}] * 2
    stock = LocalMRJobRunner(
        mr_job_script=str(script), steps=steps, conf_paths=[], upload_files=[f"{tmp_path}/side.txt#other"],
        output_dir="/out", step_output_dir="/steps",
    )  # fmt: skip
    names = sorted(stock._working_dir_mgr.name_to_path("file").items())
    caches = {
        "mapreduce.job.cache.files": ",".join(f"{path}#{name}" for name, path in names),
        "mapreduce.job.cache.archives": "",
    }
    ours = spec(caches, steps=2, job=stock.get_job_key(), step_output_dir="/steps")
    for step in range(2):
        split = {"file": FILE.path, "start": 300, "length": 200} if kind == "mapper" else None
        work = stock._task_working_dir(kind, step, 5)
        expected = stock._simulate_jobconf_for_step(kind, step, 5, split)
        got = task_env(ours, step, kind, 5, 1, work, Piece(FILE, 300, 200) if split else None)
        assert got == {name.replace(".", "_"): value for name, value in expected.items()}
    stock.cleanup(["ALL"])


def test_an_attempts_id_counts_from_zero_as_in_hadoop():
    ids = [task_env(spec(), 0, "mapper", 3, n, "/w", None)["mapreduce_task_attempt_id"] for n in (1, 2)]
    assert ids == ["attempt_job.me.1_mapper_00003_0", "attempt_job.me.1_mapper_00003_1"]


def test_the_jobs_own_jobconf_is_there_in_every_spelling(monkeypatch: pytest.MonkeyPatch):
    from mrjob.compat import jobconf_from_env

    env = task_env(spec({"mapred.job.name": "x", "my.key": "7"}), 0, "mapper", 0, 1, "/w", Piece(FILE, 0, 9))
    assert env["mapreduce_job_name"] == env["mapred_job_name"] == "x"
    assert env["my_key"] == "7"
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert jobconf_from_env("mapreduce.map.input.file") == "file:///data/in put.txt"
    assert jobconf_from_env("map.input.file") == "file:///data/in put.txt"


def test_two_spellings_that_differ_keep_their_values():
    env = task_env(
        spec({"mapred.job.name": "old", "mapreduce.job.name": "new"}), 0, "mapper", 0, 1, "/w", None
    )
    assert (env["mapred_job_name"], env["mapreduce_job_name"]) == ("old", "new")


def test_what_the_runner_says_beats_jobconf_and_cmdenv_beats_both():
    jobconf = {"mapreduce.job.id": "mine", "mapreduce.task.partition": "9"}
    env = task_env(spec(jobconf, cmdenv={"mapreduce_task_partition": "8"}), 0, "reducer", 2, 1, "/w", None)
    assert env["mapreduce_job_id"] == "job.me.1"
    assert env["mapreduce_task_partition"] == "8"
    assert env["mapred_task_partition"] == "2"


def test_nothing_of_the_workers_environment_is_in_it():
    assert not set(task_env(spec(), 0, "mapper", 0, 1, "/w", None)) & set(os.environ)


def test_paths_are_joined_when_it_is_merged_and_other_names_replaced():
    merged = with_environ({"PYTHONPATH": "/a", "X": "1", "Y": "2"}, {"PYTHONPATH": "/b", "X": "3"})
    assert merged == {"PYTHONPATH": "/b:/a", "X": "3", "Y": "2"}
    assert with_environ(merged, {"PYTHONPATH": "/b", "X": "3"}) == merged
    assert with_environ({"PYTHONPATH": "/bc"}, {"PYTHONPATH": "/b"}) == {"PYTHONPATH": "/b:/bc"}


def test_the_output_directory_of_each_step():
    two = spec(steps=2, step_output_dir="/steps")
    assert task_env(two, 0, "mapper", 0, 1, "/w", None)["mapreduce_task_output_dir"] == "/steps/0000"
    assert task_env(two, 1, "mapper", 0, 1, "/w", None)["mapreduce_task_output_dir"] == "/out"
    assert task_env(spec(steps=2), 0, "mapper", 0, 1, "/w", None)["mapreduce_task_output_dir"] == "/w"


def test_a_comma_or_a_hash_in_a_path_makes_no_name():
    caches = {"mapreduce.job.cache.files": "/a,b/x.txt#x.txt,/c/y#y"}
    env = task_env(spec(caches), 0, "mapper", 0, 1, "/w", None)
    assert env["mapreduce_job_cache_local_files"] == "/w/x.txt,/w/y"
