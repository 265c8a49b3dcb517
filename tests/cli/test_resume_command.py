"""Going on without the client, and taking up what an earlier run left, as a user types it."""

import os
import shutil
from pathlib import Path

import pytest
from cli.machine import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    (tmp_path / "good.txt").write_text("a\nb\na\n")
    (tmp_path / "bad.txt").write_text("bad\n")
    return site


def failed(site: Site, *args: str) -> str:
    """The id of a job that fails, having finished one task."""
    ended = site.run("job.py", "--no-conf", *args, "good.txt", "bad.txt")
    assert ended.rc == 1, ended.stderr
    job: str = site.json("jobs")[0]["job"]
    assert f"job {job}\n" in ended.stderr
    assert f"job {job} failed; 1 finished task, " in ended.stderr
    assert "is kept; the same command with --resume goes on from there while the job file is unchanged\n" in (
        ended.stderr
    )
    return job


def reused(site: Site, job: str) -> int:
    """How many tasks of the newest job had been finished by `job`."""
    (shown,) = site.json("show", "last")
    assert shown["resumes"] == job
    return sum(stage["reused"] for stage in shown["stages"])


def test_f37_a_resumption_that_fails_has_what_there_was(site: Site) -> None:
    first = failed(site)
    second = failed(site, "--resume")
    assert reused(site, first) == 1
    (shown,) = site.json("show", first)
    assert shown["resumed_by"] == second
    assert not os.path.exists(shown["data"])
    refused = site.run("--resume", first)
    assert refused.rc == 2
    assert f"{first} was resumed by {second}, which failed; resume that: zmqmr-run --resume {second}" in (
        refused.stderr
    )
    (site.folder / "bad.txt").write_text("c\n")
    done = site.run("--resume", second, "-q")
    assert (done.rc, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [b'"a"\t2', b'"b"\t1', b'"c"\t1']
    assert reused(site, second) == 1
    assert os.listdir(site.folder / "tmp") == []
    refused = site.run("--resume", first)
    assert f"{first} was resumed by {site.json('jobs')[0]['job']}, which is done" in refused.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["--skip-bad-records", "1", "bad.txt", "good.txt"],
        ["good.txt", "-o", "out", "bad.txt"],
        ["--cat-output", "good.txt", "bad.txt"],
    ],
)
def test_f37_what_does_not_matter_to_tasks_is_no_other_command(site: Site, args: list[str]) -> None:
    first = failed(site)
    site.run("job.py", "--resume", "--no-conf", "-q", *args)
    assert reused(site, first) == 1


def test_f37_when_no_run_is_the_same_the_near_ones_are_named(site: Site) -> None:
    first = failed(site)
    refused = site.run("job.py", "--no-conf", "--resume", "job.py")
    assert refused.rc == 2
    assert f"--resume-from JOB; unfinished jobs of this job file: {first} (--no-conf good.txt bad.txt)" in (
        refused.stderr
    )


def test_a_job_to_resume_must_be_known(site: Site) -> None:
    for args in (["--resume"], ["--resume", "-q"]):
        assert "--resume needs the id of a job" in site.run(*args).stderr
    assert "zmqmr-run job.py --resume ..." in site.run("--resume", "job.py", "good.txt").stderr
    unknown = site.run("--resume", "nope")
    assert unknown.rc == 2
    assert "there is no job 'nope'" in unknown.stderr


def test_f37_a_detached_job_that_nobody_could_find_again_is_refused(site: Site) -> None:
    site.environ["ZMQMR_STATE_DIRECTORY"] = "/proc/nowhere"
    refused = site.run("job.py", "--no-conf", "-q", "--detach", "good.txt")
    assert (refused.rc, refused.stdout) == (2, b"")
    assert len(refused.stderr.splitlines()) == 1
    assert "--detach needs a record of the job: cannot write to /proc/nowhere/jobs" in refused.stderr
    goes_on = site.run("job.py", "--no-conf", "good.txt")
    assert (goes_on.rc, goes_on.stdout) == (0, b'"a"\t2\n"b"\t1\n')
    assert goes_on.stderr.count("cannot write to /proc/nowhere/jobs") == 1
    assert os.listdir(site.folder / "tmp") == []


def test_a_detached_job_says_how_to_go_on(site: Site) -> None:
    begun = site.run("job.py", "--no-conf", "--detach", "good.txt")
    job = begun.stdout.decode().strip()
    assert f"zmqmr attach {job} follows it and prints its output" in begun.stderr
    assert "job output is in" not in begun.stderr
    assert site.zmqmr("attach", "last").stdout == b'"a"\t2\n"b"\t1\n'


def test_a_temporary_directory_that_is_not_there_is_not_made(site: Site) -> None:
    shutil.rmtree(site.folder / "tmp")
    refused = site.run("job.py", "--no-conf", "good.txt")
    assert refused.rc == 2
    assert f"TMPDIR={site.folder}/tmp is no directory" in refused.stderr
    assert not (site.folder / "tmp").exists()


def test_f24_records_that_are_left_out_are_kept_without_an_output_directory_too(site: Site) -> None:
    ended = site.run("job.py", "--no-conf", "--skip-bad-records", "1", "good.txt", "bad.txt")
    assert ended.rc == 0, ended.stderr
    (kept,) = (site.folder / "state" / "zmqmr" / "repro").glob("*.skipped")
    assert kept.read_text() == "bad\n"
    assert f"1 record left out, kept in {kept}" in ended.stderr
    assert os.listdir(site.folder / "tmp") == []
