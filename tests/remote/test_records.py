"""What this machine remembers of jobs that it has run on a cluster."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from differential.harness import Result, run, run_stock
from remote.cluster import RemoteCluster, until


class Site:
    """A client's machine with a memory of its own."""

    def __init__(self, cluster: RemoteCluster, folder: Path):
        self.cluster, self.folder = cluster, folder
        self.environ = cluster.environ({"XDG_STATE_HOME": str(folder / "state")})

    def run(self, job: str | Path, *words: object, stdin: bytes = b"") -> Result:
        return run(self.cluster.job_command(job, *words), self.environ, stdin)

    def start(self, job: str | Path, *words: object) -> "subprocess.Popen[bytes]":
        pipe = subprocess.PIPE
        command = self.cluster.job_command(job, *words)
        return subprocess.Popen(command, env=self.environ, stdin=pipe, stdout=pipe, stderr=pipe)

    def zmqmr(self, *words: object) -> Result:
        return self.cluster.command(*words, environ={"XDG_STATE_HOME": str(self.folder / "state")})

    def newest(self) -> dict[str, Any]:
        listed = self.zmqmr("jobs", "--json").stdout.splitlines()
        return dict(json.loads(listed[0])) if listed else {}


@pytest.fixture
def site(steady: RemoteCluster, ours: Path) -> Site:
    return Site(steady, ours)


@pytest.fixture
def words(ours: Path) -> Path:
    path = ours / "few.txt"
    path.write_text("a b\na\n")
    return path


COUNTED = {b'"a"\t2', b'"b"\t1'}


def test_a_job_is_remembered_with_its_cluster_which_need_not_be_named_again(site, words):
    assert site.run("word_count", words).rc == 0

    job = site.newest()
    assert (job["state"], job["cluster"]) == ("succeeded", site.cluster.name)
    table = site.zmqmr("jobs").stdout.decode().splitlines()
    assert table[0].split() == ["JOB", "STATE", "BEGUN", "TIME", "DONE", "CLUSTER", "WHY"]
    assert site.cluster.name in table[1]
    shown = site.zmqmr("show", job["job"]).stdout.decode()
    assert f"cluster:    {site.cluster.name}" in shown and "output:     was printed" in shown
    assert "step 1 of 1 map: 1 of 1 task done" in shown
    assert "running on the cluster" in site.zmqmr("logs", job["job"]).stdout.decode()
    assert site.zmqmr("kill", job["job"]).rc == 2


def test_a_job_that_fails_is_said_in_one_line_and_explained_in_its_log(site, ours):
    bad = ours / "bad.txt"
    bad.write_text("fine\nraise me\n")

    failed = site.run("bad_records", bad)

    assert failed.rc == 1
    assert failed.stderr.splitlines()[-1] == (
        "Step 1 of 1 failed: map-0-00000 failed 4 times: ValueError: cannot take raise me"
    )
    assert "run it alone on that host: sudo zmqmr replay " in failed.stderr
    job = site.newest()
    assert (job["state"], job["reason"]) == (
        "failed",
        "map-0-00000 failed 4 times: ValueError: cannot take raise me",
    )
    assert "cannot take raise me" in site.zmqmr("logs", job["job"]).stdout.decode()


def test_standard_input_bears_that_name_in_failures(site):
    failed = site.run("bad_records", stdin=b"raise me\n")

    assert failed.rc == 1 and "while reading standard input at byte 0" in failed.stderr


def test_a_detached_job_is_found_followed_and_fetched_by_its_id_F37(site, words):
    job = site.run("word_count", "--detach", words).stdout.decode().strip()

    listed = site.zmqmr("jobs").stdout.decode().splitlines()[1]
    assert site.newest()["state"] == "left" and "it goes on without a client" in listed
    until(lambda: "succeeded" in site.zmqmr("show", job).stdout.decode(), "it did not end")
    attached = site.zmqmr("attach", job[:25])

    assert set(attached.lines) == COUNTED, attached.stderr
    assert f"{job} on the cluster {site.cluster.name}: succeeded, 2 of 2 tasks done" in attached.stderr
    assert site.newest()["state"] == "succeeded"
    shown = site.zmqmr("show", job).stdout.decode()
    assert "was printed" in shown and "data:" not in shown
    again = site.zmqmr("attach", job)
    assert (again.rc, again.stdout) == (2, b"") and "was fetched before" in again.stderr


def as_the_cluster_says(site: Site, job: str) -> dict[str, Any]:
    listed = site.cluster.command("jobs", "--cluster", site.cluster.name, "--json").stdout.splitlines()
    (found,) = (each for each in map(json.loads, listed) if each["job"] == job)
    return dict(found)


def test_a_detached_job_took_as_long_as_its_cluster_says(site, words, tell):
    job = site.run("noted_words", "--detach", "--pause", "1", "--tell", tell, words).stdout.decode().strip()

    running = as_the_cluster_says(site, job)
    assert site.zmqmr("attach", job).rc == 0

    ended = as_the_cluster_says(site, job)
    assert (running["state"], ended["state"]) == ("running", "succeeded")
    assert ended["seconds"] > max(running["seconds"], 2)  # two lines, a second each
    assert abs(site.newest()["seconds"] - ended["seconds"]) < 0.001


def test_a_detached_jobs_output_goes_to_the_directories_it_was_asked_for(site, words, ours):
    where = ("--output-dir", ours / "out", "--step-output-dir", ours / "steps")
    detached = site.run("chains", "--chain", "mr,m", "--detach", *where, words)
    job = detached.stdout.decode().strip()
    assert not (ours / "out").exists()

    attached = site.zmqmr("attach", job)

    assert (attached.rc, attached.stdout) == (0, b""), attached.stderr
    stock = run_stock("chains", ["--chain", "mr,m"], [words])
    parts = sorted((ours / "out").glob("part-*"))
    assert sorted(b"".join(p.read_bytes() for p in parts).splitlines()) == sorted(stock.stdout.splitlines())
    assert (ours / "out" / "_SUCCESS").exists() and (ours / "steps" / "_SUCCESS").exists()
    assert list((ours / "steps" / "0000").glob("part-*"))


def test_who_attaches_leaves_the_output_to_the_jobs_own_client_F37(site, words, tell):
    client = site.start("noted_words", "--pause", "1", "--tell", tell, words)
    until((tell / "executions").exists, "no task began")

    attached = site.zmqmr("attach", site.newest()["job"])

    assert attached.rc == 0 and attached.stdout == b""
    assert "its own client has the output" in attached.stderr
    stdout, _ = client.communicate(timeout=60)
    assert set(stdout.splitlines()) == COUNTED


def test_a_job_whose_client_was_killed_is_left_and_can_be_killed_by_its_id_F36(site, words, tell):
    client = site.start("noted_words", "--pause", "30", "--tell", tell, words)
    until((tell / "executions").exists, "no task began")

    client.send_signal(signal.SIGKILL)
    client.communicate()

    job = site.newest()
    assert job["state"] == "left"
    assert "state:      running" in site.zmqmr("show", job["job"]).stdout.decode()
    assert site.zmqmr("gc").rc == 0
    killed = site.zmqmr("kill", job["job"])
    assert killed.stdout.decode() == f"{job['job']} was killed\n", killed.stderr
    assert site.newest()["state"] == "killed"


def test_a_cluster_that_cannot_be_asked_hides_nothing_that_is_known_here(site, words):
    site.run("word_count", "--detach", words)
    record = next((site.folder / "state" / "zmqmr" / "jobs").glob("*.json"))
    known = json.loads(record.read_text())
    record.write_text(json.dumps(known | {"cluster": "gone"}))

    shown = site.zmqmr("show", known["job"])

    assert shown.rc == 0 and "state:      left" in shown.stdout.decode()
    assert "no cluster gone is known here" in shown.stderr
    site.cluster.command("kill", known["job"], "--cluster", site.cluster.name)
    record.write_text(json.dumps(known))
    site.zmqmr("attach", known["job"])


@pytest.fixture
def bad(ours: Path) -> Path:
    path = ours / "bad.txt"
    path.write_text("fine\n" * 20 + "raise me\n")
    return path


SKIP = ("--skip-bad-records", "1")


def left_out(folder: Path, said: str) -> list[str]:
    """The records in the files that a message names."""
    assert f"1 record left out, kept in {folder}" in said, said
    files = [folder] if folder.is_file() else list(folder.iterdir())
    return [line for path in files for line in path.read_text().splitlines()]


@pytest.mark.parametrize("how", ["followed", "detached"])
def test_records_left_out_of_a_printed_output_are_kept_on_this_machine_F24(site, bad, how):
    if how == "followed":
        result = site.run("bad_records", *SKIP, bad)
        job = site.newest()["job"]
    else:
        job = site.run("bad_records", *SKIP, "--detach", bad).stdout.decode().strip()
        result = site.zmqmr("attach", job)

    assert result.stdout == b'"fine"\t20\n', result.stderr
    kept = site.folder / "state" / "zmqmr" / "repro" / f"{job}.skipped"
    assert left_out(kept, result.stderr) == ["raise me"]
    assert site.cluster.stored() == []


def test_records_left_out_of_a_detached_job_are_said_by_who_fetches_the_output_F24(site, bad, ours):
    job = site.run("bad_records", *SKIP, "--detach", "-o", ours / "out", bad).stdout.decode().strip()

    attached = site.zmqmr("attach", job)

    assert left_out(ours / "out" / "_skipped", attached.stderr) == ["raise me"]


def test_who_attaches_on_another_machine_leaves_the_output_to_the_jobs_own_client_F37(site, ours, tmp_path):
    """Its client is in the middle of the output when another machine takes a copy of all of it."""
    numbers = ours / "numbers.txt"
    numbers.write_text("".join(f"{number:04d}\n" for number in range(24)))
    client = site.start("makes_blocks", "--jobconf", "mapreduce.job.maps=4", numbers)
    assert client.stdout is not None
    begin = os.read(client.stdout.fileno(), 1000)
    job = site.newest()["job"]

    there = Site(site.cluster, tmp_path / "there").zmqmr("attach", job, "--cluster", site.cluster.name)

    rest, stderr = client.communicate(timeout=60)
    assert client.returncode == 0, stderr.decode()
    assert there.rc == 0 and there.stdout == begin + rest and len(there.stdout) == 24_024_000
    assert site.cluster.stored() == []


def test_standard_output_that_takes_no_more_is_named_and_the_output_kept(site, words):
    job = site.run("word_count", "--detach", words).stdout.decode().strip()
    command = [sys.executable, "-m", "zmqmr", "attach", job]
    with open("/dev/full", "wb") as full:
        attached = subprocess.run(
            command, env=site.environ, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE
        )

    said = attached.stderr.decode()
    assert attached.returncode == 1 and "Traceback" not in said
    assert said.splitlines()[-1] == (
        "zmqmr: cannot write to standard output: No space left on device; the output is kept"
    )
    assert set(site.zmqmr("attach", job).lines) == COUNTED
