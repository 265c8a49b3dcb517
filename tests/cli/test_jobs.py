"""zmqmr jobs, show, logs, attach, kill and gc, on the records of real jobs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from differential.harness import plain_environ, run

JOB = """\
import sys
from mrjob.job import MRJob

class Words(MRJob):
    def mapper(self, _, line):
        if line == 'bad':
            print('about to fail', file=sys.stderr)
            raise ValueError('a bad line')
        self.increment_counter('seen', 'lines')
        yield line, 1

    def reducer(self, line, ones):
        yield line, sum(ones)

if __name__ == '__main__':
    Words.run()
"""


class Site:
    """A machine's memory of its own, and the commands that look at it."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "job.py").write_text(JOB)
        (folder / "tmp").mkdir()
        self.environ = plain_environ({"XDG_STATE_HOME": f"{folder}/state", "TMPDIR": f"{folder}/tmp"})

    def run(self, *args: str, stdin: bytes = b"") -> Any:
        command = [sys.executable, "-m", "zmqmr.cli.run", *args]
        return run(command, self.environ, stdin, cwd=self.folder)

    def zmqmr(self, *args: str) -> Any:
        return run([sys.executable, "-m", "zmqmr", *args], self.environ, cwd=self.folder)

    def json(self, *args: str) -> list[dict[str, Any]]:
        ended = self.zmqmr(*args, "--json")
        return [json.loads(line) for line in ended.stdout.splitlines()]


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
    assert "a bad line" in site.zmqmr("show", jobs[1]).stdout.decode()


def test_logs_explains_every_failed_attempt_though_the_client_was_quiet(site: Site, jobs: list[str]) -> None:
    said = site.zmqmr("logs", "--follow", jobs[1])
    text = said.stdout.decode()
    for attempt in range(1, 5):
        assert text.count(f"Attempt {attempt} of 4 of task map-0-00000 failed") == 1
    assert "about to fail" in text and "byte 0" in text
    assert f"{jobs[1]} failed" in said.stderr
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
    assert "a bad line" in failed.stderr
    assert site.zmqmr("attach", jobs[2]).rc == 0


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


def test_a_reader_that_goes_away_is_no_traceback(site: Site) -> None:
    command = f"{sys.executable} -m zmqmr gc --dry-run | true"
    ended = subprocess.run(["bash", "-c", command], env=site.environ, capture_output=True, text=True)
    assert ended.stderr == ""


def test_a_job_to_resume_must_be_known(site: Site) -> None:
    assert "--resume needs the id of a job" in site.run("--resume").stderr
    unknown = site.run("--resume", "nope")
    assert unknown.rc == 2
    assert "there is no job 'nope'" in unknown.stderr
