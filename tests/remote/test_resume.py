"""--resume with --cluster: what a run has finished there does not run again."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from differential.harness import Result, run, run_stock
from remote.cluster import RemoteCluster, until

JOB = """\
import os
import time
from mrjob.job import MRJob
from mrjob.step import MRStep


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg('--tell', default='')
        self.add_passthru_arg('--map-only', action='store_true')

    def steps(self):
        if self.options.map_only:
            return [MRStep(mapper_init=self.begin, mapper=self.words)]
        return super().steps()

    def note(self, what):
        if self.options.tell:
            with open(os.path.join(self.options.tell, 'executions'), 'a') as file:
                file.write(what + '\\n')

    def begin(self):
        time.sleep(0.3)  # so that each worker gets some
        self.note('map')

    def words(self, _, line):
        for word in line.split():
            self.fail_at('bad', word)
            yield word, 1

    def fail_at(self, bad, word):
        tell = self.options.tell
        if word == bad and tell and not os.path.exists(os.path.join(tell, 'mended')):
            raise ValueError('not yet')

    mapper_init = begin

    def mapper(self, _, line):
        self.increment_counter('seen', 'lines')
        for word in line.split():
            yield word, 1

    def reducer_init(self):
        self.note('reduce')

    def reducer(self, word, ones):
        self.fail_at('bad', word)
        yield word, sum(ones)


if __name__ == '__main__':
    Job.run()
"""


class Site:
    """A client's machine, with a job that fails at its last word until it is mended."""

    def __init__(self, cluster: RemoteCluster, folder: Path, tell: Path):
        self.cluster, self.folder, self.tell = cluster, folder, tell
        self.environ = cluster.environ({"XDG_STATE_HOME": str(folder / "state")})
        self.job = folder / "job.py"
        self.job.write_text(JOB)
        self.input = folder / "in.txt"
        lines = [f"word{number % 50} and more" for number in range(400)]
        self.input.write_text("\n".join([*lines, "bad"]) + "\n")

    def run(self, *words: object) -> Result:
        command = self.cluster.job_command(self.job, "--tell", self.tell, *words, self.input)
        return run(command, self.environ, cwd=self.folder)

    def fail(self, *words: object) -> None:
        failed = self.run(*words)
        assert failed.rc == 1 and "not yet" in failed.stderr, failed.stderr
        assert "the same command with --resume uses it again" in failed.stderr
        assert self.executions()["map"] > 3

    def mend(self) -> None:
        (self.tell / "executions").unlink()
        (self.tell / "mended").touch()

    def executions(self) -> Counter[str]:
        path = self.tell / "executions"
        return Counter(path.read_text().split()) if path.exists() else Counter()

    def assert_right(self, result: Result, *words: object) -> None:
        stock = run_stock(self.job, words, [self.input])
        assert result.rc == 0, result.stderr
        assert result.lines == stock.lines
        assert result.counters == stock.counters


@pytest.fixture
def site(steady: RemoteCluster, ours: Path, tell: Path) -> Site:
    return Site(steady, ours, tell)


def kept_on(cluster: RemoteCluster, *names: str) -> list[str]:
    return [path.name for name in names for path in (cluster.home / name).rglob("*.spool")]


def test_tasks_that_were_finished_do_not_run_again_F37(site):
    others = set(kept_on(site.cluster, "ann", "bob"))  # of other tests' jobs
    site.fail()
    before = set(kept_on(site.cluster, "ann", "bob")) - others
    site.mend()

    resumed = site.run("--resume")

    site.assert_right(resumed)
    assert site.executions() == {"reduce": 1}  # the one that failed
    assert "which failed: its finished tasks are used again" in resumed.stderr
    assert "tasks were done by job." in resumed.stderr
    until(lambda: not before & set(kept_on(site.cluster, "ann", "bob")), "what was kept stays for ever")
    again = site.run("--resume")
    assert again.rc == 2 and "nothing to resume" in again.stderr


def test_parts_of_the_output_that_were_finished_are_not_made_again(site):
    site.fail("--map-only")
    tasks = site.executions()["map"] - 3  # the failing one ran four times
    site.mend()

    resumed = site.run("--map-only", "--resume")

    site.assert_right(resumed, "--map-only")
    assert site.executions() == {"map": 1}
    assert f"{tasks - 1} of {tasks} tasks were done by job." in resumed.stderr


def test_parts_that_the_store_has_not_kept_are_made_again(site):
    site.fail("--map-only")
    site.mend()
    blobs = site.cluster.home / "coordinator" / "store" / "blobs"
    for blob in blobs.iterdir():
        if blob.stat().st_nlink == 1:
            blob.unlink()

    resumed = site.run("--map-only", "--resume")

    site.assert_right(resumed, "--map-only")
    assert "0 of " in resumed.stderr


def test_what_changed_is_said_and_runs_again(site):
    site.fail()
    site.mend()
    site.job.write_text(JOB.replace("'seen', 'lines'", "'seen', 'all lines'"))

    resumed = site.run("--resume")

    site.assert_right(resumed)
    assert site.executions()["map"] > 3
    assert "nothing of it is used, because the job file changed" in resumed.stderr


def test_a_job_that_still_runs_or_ran_elsewhere_is_not_taken_up(site):
    command = site.cluster.job_command(
        "noted_words", "--detach", "--pause", "30", "--tell", site.tell, site.input
    )
    job = run(command, site.environ, cwd=site.folder).stdout.decode().strip()
    until((site.tell / "executions").exists, "no task began")

    there = run([*command[:4], "--resume-from", job, *command[4:]], site.environ, cwd=site.folder)
    here = run([*command[:4], "--resume-from", job, "--tell", str(site.tell), str(site.input)], site.environ)

    assert there.rc == 2 and f"{job} is still running" in there.stderr
    assert here.rc == 2 and f"{job} ran on the cluster {site.cluster.name}; resume it with" in here.stderr
    site.cluster.command("kill", job, "--cluster", site.cluster.name)


def test_what_a_worker_kept_is_found_after_it_was_killed_and_lost_with_its_drive(cluster, mine, tell):
    """Ann is started again on her drive; bob's is lost."""
    site = Site(cluster, mine, tell)
    site.fail()
    anns, bobs = len(kept_on(cluster, "ann")), len(kept_on(cluster, "bob"))
    assert anns and bobs
    tasks = site.executions()
    site.mend()
    for name in ("ann", "bob"):
        cluster.kill(name)
    shutil.rmtree(cluster.home / "bob")
    until(lambda: not cluster.workers(), "they were not given up")
    for name in ("ann", "bob"):
        cluster.start_worker(name)
    until(lambda: cluster.workers() == {"ann", "bob"}, "they did not come back")

    resumed = site.run("--resume")

    site.assert_right(resumed)
    ran = site.executions()
    assert 1 <= ran["map"] < tasks["map"]
    assert ran["map"] + ran["reduce"] <= bobs + 1
    assert f"{anns} of " in resumed.stderr
