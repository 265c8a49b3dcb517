"""zmqmr jobs, show, logs, attach, kill and gc, on the records of real jobs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli.machine import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Has run three jobs, the newest first: one detached, one that failed, one that succeeded."""
    site = Site(tmp_path_factory.mktemp("site"))
    (site.folder / "good.txt").write_text("a\nb\na\n")
    (site.folder / "bad.txt").write_text("bad\n")
    assert site.run("job.py", "--no-conf", "good.txt").rc == 0
    assert site.run("job.py", "--no-conf", "-q", "bad.txt").rc == 1
    assert site.run("job.py", "--no-conf", "-q", "--detach", "good.txt").rc == 0
    return site


@pytest.fixture(scope="module")
def jobs(site: Site) -> list[str]:
    """The ids of the three, when the detached one has ended."""
    found = [each["job"] for each in site.json("jobs")]
    site.zmqmr("attach", "--json", found[0])
    return found


def test_f37_jobs_lists_them_with_the_newest_first(site: Site, jobs: list[str]) -> None:
    listed = site.json("jobs")
    assert [each["state"] for each in listed] == ["succeeded", "failed", "succeeded"]
    assert [(each["done"], each["tasks"]) for each in listed] == [(2, 2), (0, 2), (2, 2)]
    assert listed[1]["reason"].endswith("ValueError: a bad line")
    table = site.zmqmr("jobs").stdout.decode().splitlines()
    assert table[0].split() == ["JOB", "STATE", "BEGUN", "TIME", "DONE", "WHY"]
    assert [line.split()[0] for line in table[1:]] == jobs


def test_show_says_all_about_a_job(site: Site, jobs: list[str]) -> None:
    said = site.zmqmr("show", jobs[2]).stdout.decode()
    for part in ("succeeded", "job.py --no-conf good.txt", "good.txt", "map: 1 of 1 task done", "lines = 3"):
        assert part in said
    (shown,) = site.json("show", jobs[2])
    assert shown["counters"] == [{"seen": {"lines": 3}}]
    assert shown["failures"] == []
    assert shown["fetched"] is False
    (failed,) = site.json("show", jobs[1])
    assert "a bad line" in failed["failures"][-1]["text"]
    said = site.zmqmr("show", jobs[1]).stdout.decode()
    assert said.count("Traceback") == 1 and "3 earlier failures: zmqmr logs" in said
    for line in ("output:", "data:", "processes:"):
        assert line not in said, "it has none"
    assert "job.py --no-conf -q --detach good.txt" in site.zmqmr("show", jobs[0]).stdout.decode()


def test_the_newest_job_needs_no_id(site: Site, jobs: list[str]) -> None:
    (shown,) = site.json("show", "last")
    assert shown["job"] == jobs[0]


def test_logs_explains_every_failed_attempt_though_the_client_was_quiet(site: Site, jobs: list[str]) -> None:
    said = site.zmqmr("logs", "--follow", jobs[1])
    text = said.stdout.decode()
    for attempt in range(1, 5):
        assert text.count(f"Attempt {attempt} of 4 of task map-0-00000 failed") == 1
    assert text.count("Traceback") == text.count("about to fail") == text.count("byte 0") == 1
    assert text.count("in the same way\n") == 3
    assert len(text.splitlines()) <= 16
    assert said.stderr == ""
    entries = site.json("logs", jobs[1])
    assert [each["level"] for each in entries if each.get("failure")] == ["warning"] * 3 + ["error"]


def test_logs_has_what_a_client_that_was_not_quiet_said(site: Site, jobs: list[str]) -> None:
    assert any("Step 1 of 1 reduce: 1 task done" in each["text"] for each in site.json("logs", jobs[2]))


def test_f37_attach_fetches_the_output_of_a_detached_job_once(site: Site, jobs: list[str]) -> None:
    assert os.listdir(site.folder / "tmp") != []
    first = site.zmqmr("attach", jobs[0])
    assert (first.rc, first.stdout) == (0, b'"a"\t2\n"b"\t1\n'), first.stderr
    again = site.zmqmr("attach", jobs[0])
    assert (again.rc, again.stdout) == (0, b"")
    assert "was printed before" in again.stderr
    assert os.listdir(site.folder / "tmp") == []


def test_attach_ends_as_the_job_did(site: Site, jobs: list[str]) -> None:
    failed = site.zmqmr("attach", jobs[1])
    assert failed.rc == 1
    assert failed.stderr.count("ValueError: a bad line\n  while reading") == 1
    ended = site.zmqmr("attach", jobs[2])
    assert ended.rc == 0
    assert ended.stderr.splitlines() == [
        f"zmqmr: {jobs[2]} succeeded",
        "zmqmr: its client printed its output",
    ]


@pytest.mark.parametrize("command", ["show", "logs", "attach", "kill"])
def test_a_job_that_nobody_knows_is_an_error(site: Site, jobs: list[str], command: str) -> None:
    ended = site.zmqmr(command, "nope")
    assert (ended.rc, ended.stdout) == (2, b"")
    assert "there is no job 'nope'" in ended.stderr
    ambiguous = site.zmqmr(command, "job.")
    assert ambiguous.rc == 2
    assert "may be any of" in ambiguous.stderr and jobs[0] in ambiguous.stderr


def test_a_job_that_has_ended_cannot_be_killed(site: Site, jobs: list[str]) -> None:
    ended = site.zmqmr("kill", jobs[1])
    assert ended.rc == 2
    assert "does not run: it failed" in ended.stderr


def test_where_no_job_has_run_that_is_said(tmp_path: Path) -> None:
    site = Site(tmp_path)
    ended = site.zmqmr("jobs")
    assert (ended.rc, ended.stdout) == (0, b"")
    assert "no job has run" in ended.stderr
    assert site.json("jobs") == []


@pytest.mark.parametrize("command", ["jobs", "show", "logs", "attach", "kill", "gc"])
def test_help_says_what_a_command_does_and_how_it_ends(site: Site, command: str) -> None:
    said = site.zmqmr(command, "--help").stdout.decode()
    assert len(said.partition("\n\n")[2].partition("\n\n")[0]) > 80
    assert "Exit status: " in said
    if command == "gc":
        assert "ZMQMR_STATE_DAYS" in said and "ZMQMR_STATE_BYTES" in said
    if command == "jobs":
        assert "the jobs of this cluster" in said


def test_a_record_that_is_damaged_is_named(site: Site, jobs: list[str]) -> None:
    damaged = site.folder / "state" / "zmqmr" / "jobs" / "torn.json"
    damaged.write_text("{")
    try:
        ended = site.zmqmr("jobs")
        assert (ended.rc, len(ended.stdout.splitlines())) == (0, 4)
        assert f"1 record cannot be read, the first is {damaged}" in ended.stderr
        assert f"the record {damaged} is damaged" in site.zmqmr("show", "torn").stderr
    finally:
        damaged.unlink()


def test_gc_says_what_it_would_remove_and_then_does(site: Site, jobs: list[str]) -> None:
    site.environ["ZMQMR_STATE_DAYS"] = "0"
    try:
        would = site.json("gc", "--dry-run")
        assert len(site.json("jobs")) == 3
        assert site.json("gc") == would
        assert {each["reason"] for each in would} == {"older than 0 days"}
        assert site.json("jobs") == []
        assert "nothing to remove" in site.zmqmr("gc").stdout.decode()
    finally:
        del site.environ["ZMQMR_STATE_DAYS"]


def test_what_nobody_will_fetch_is_not_kept(site: Site) -> None:
    assert site.run("job.py", "--no-conf", "-q", "--detach", "--no-cat-output", "good.txt").rc == 0
    ended = site.zmqmr("attach", "last")
    assert (ended.rc, ended.stdout) == (0, b"")
    assert os.listdir(site.folder / "tmp") == []
    assert "output:     not kept" in site.zmqmr("show", "last").stdout.decode()


def test_a_reader_that_goes_away_is_no_traceback(site: Site) -> None:
    command = f"{sys.executable} -m zmqmr gc --dry-run | true"
    ended = subprocess.run(["bash", "-c", command], env=site.environ, capture_output=True, text=True)
    assert ended.stderr == ""
