"""Checks the scheduler's tests: each of these deliberate bugs must make one of them fail.

For developers, after a change of the scheduler or its tests: `python scripts/mutate_core.py`. Works on a
copy of the package. Ends with 1 and the names of the survivors if a bug is not noticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = [f"core/test_{name}.py" for name in ("restart", "records", "leaving", "simulation", "scheduler")]

# What the bug is, the module of the core, its text (found exactly once), what takes its place.
MUTANTS = [
    (
        "a worker that is drained keeps what it owns",
        "scheduler",
        "if worker.name in stage.owners:  # others take over what nobody reads yet",
        "if False:  # others take over what nobody reads yet",
    ),
    (
        "a worker that is to stay after all gets none of what nobody could own",
        "scheduler",
        "if worker.name in job.opened and not job.settled and not job.awaited:",
        "if False:",
    ),
    (
        "what was committed before a restart is committed again",
        "restart",
        "in committed:\n                self._confirm",
        "in ():\n                self._confirm",
    ),
    ("an attempt that no worker holds is waited for", "restart", "elif known not in running:", "elif False:"),
    (
        "a worker that is ahead of the journal goes on",
        "restart",
        "if self._is_ahead(inventory):",
        "if False:",
    ),
    (
        "a record is left out after one failure",
        "reports",
        "again, task.suspect = at is not None and at == task.suspect, at",
        "again, task.suspect = at is not None, at",
    ),
    (
        "reports of an old epoch are believed",
        "scheduler",
        "if worker is None or event.message.epoch != worker.epoch:",
        "if worker is None:",
    ),
    (
        "reports of the wrong worker are believed",
        "reports",
        "if task is None or attempt is None or attempt.worker != worker.name:",
        "if task is None or attempt is None:",
    ),
    (
        "commits of an old attempt are believed",
        "reports",
        "task.state is not TaskState.COMMITTING or task.committing != report.attempt:",
        "task.state is not TaskState.COMMITTING:",
    ),
    (
        "the first confirmation is taken for all",
        "reports",
        "        if task.awaited:\n            return\n",
        "",
    ),
    (
        "anyone can make a commit fail or succeed",
        "reports",
        "return task if worker.name in task.awaited else None",
        "return task",
    ),
    (
        "what a failed commit has not delivered is forgotten",
        "reports",
        "            task.delivering -= refused\n",
        "",
    ),
    ("a task is done although records are missing", "reports", "if task.missing & stage.owned:", "if False:"),
    ("counters of a task count twice", "reports", "        if not task.counted:\n", "        if True:\n"),
    (
        "a failure too many is allowed",
        "reports",
        "task.failures >= self._attempts_allowed(job, task)",
        "task.failures > self._attempts_allowed(job, task)",
    ),
    ("a failure that would repeat is retried", "reports", "(failure.fatal or ", "("),
    (
        "a spool that cannot be replayed is tried for ever",
        "reports",
        "                task.spool = None\n",
        "                pass\n",
    ),
    (
        "other records of the same task are mixed",
        "reports",
        "task.signature not in (None, signature(report))",
        "False",
    ),
    ("the loser of a race is committed too", "reports", "            rival.superseded = True\n", ""),
    (
        "the reason of a kill is forgotten",
        "reports",
        "if attempt.kill_reason:",
        "if False:",
    ),
    (
        "damaged input is read again",
        "reports",
        "            if failure.damaged and job.plans[task.stage].source is not None:\n",
        "            if False:\n",
    ),
    (
        "an attempt that ends does not free its slot",
        "cluster",
        "        worker.free += 1\n        self._offer(worker)\n",
        "",
    ),
    (
        "a job that ends does not free its slots",
        "cluster",
        "                self.workers[attempt.worker].free += 1\n",
        "",
    ),
    (
        "an attempt number is used again",
        "launching",
        "        task.attempt += 1\n",
        "        task.attempt = task.failures + 1\n",
    ),
    (
        "one job gets all slots",
        "launching",
        "jobs.sort(key=lambda job: job.running)",
        "jobs.sort(key=lambda job: job.spec.job)",
    ),
    (
        "what others have is sent again",
        "launching",
        "and (missing is None or partition in missing)",
        "and True",
    ),
    (
        "a job that failed on a worker goes on there",
        "launching",
        "worker.name not in job.opened or self._excluded(job, worker.name)",
        "worker.name not in job.opened",
    ),
    (
        "a task that failed on a worker is run there again",
        "launching",
        "if worker.name not in failed_on:",
        "if True:",
    ),
    (
        "a lost worker's attempts are waited for",
        "repair",
        "if attempt.worker == name and not self._lose_attempt(job, task, attempt, worker.host):",
        "if False:",
    ),
    ("the partitions of a lost worker keep their owner", "repair", "if owner == name])", "if False])"),
    (
        "the spools of a lost worker are replayed",
        "repair",
        "                    task.spool = None\n",
        "                    pass\n",
    ),
    (
        "the part files of a lost worker are read",
        "repair",
        "                    task.worker = None  # its part file is gone\n",
        "                    pass\n",
    ),
    ("a task may lose workers for ever", "repair", "if task.losses >= LOST_WHILE_EXECUTING:", "if False:"),
    (
        "what was delivered to a lost owner is not missed",
        "state",
        "                task.missing |= partitions\n",
        "                pass\n",
    ),
    (
        "a task that delivered to a lost owner stays done",
        "state",
        "                self.reopen(task)\n",
        "                pass\n",
    ),
    (
        "lost frames are waited for for ever",
        "scheduler",
        "                yield CommitOverdue(job.spec.job, task.name, task.committing)\n",
        "                pass\n",
    ),
    (
        "no kill for lack of progress",
        "scheduler",
        "                    yield AttemptSilent(job.spec.job, task.name, attempt.number)\n",
        "                    pass\n",
    ),
    (
        "a slow attempt is never raced",
        "scheduler",
        "                yield AttemptSlow(job.spec.job, task.name, first.number)\n",
        "                pass\n",
    ),
    (
        "the input of a task without a source is made again",
        "reports",
        "            if failure.damaged and job.plans[task.stage].source is not None:\n",
        "            if failure.damaged and job.plans[task.stage].source != 0:\n",
    ),
    (
        "what found no room is tried again at once",
        "reports",
        "        if failure.no_room:\n",
        "        if False:\n",
    ),
    (
        "who cannot open a job owns its partitions",
        "reports",
        "enumerate(stage.owners) if owner == worker.name])",
        "enumerate(stage.owners) if False])",
    ),
    (
        "a commit waits for who cannot open its job",
        "reports",
        "        self._commit_without(job, worker.name)\n",
        "",
    ),
    (
        "a job that nobody can open waits for ever",
        "reports",
        "if not failure.fatal and not self._nobody_opens(job):",
        "if not failure.fatal:",
    ),
    (
        "who could not open a job is not asked again",
        "scheduler",
        "            if at <= self._now and not self.workers[name].resuming:\n",
        "            if False:\n",
    ),
    (
        "attempts wait for a lost owner",
        "repair",
        "            self._tell(sender, OwnerLost(job.spec.job, worker.shuffle))\n",
        "            pass\n",
    ),
    (
        "partitions stay where there is no room",
        "repair",
        "        if not ring or not moved:\n",
        "        if True:\n",
    ),
    (
        "partitions that are read are moved",
        "repair",
        "readers[number].needs_input and not readers[number].attempts",
        "readers[number].needs_input",
    ),
    (
        "a job without tasks waits for work",
        "reports",
        "        self._advance(job)  # there may be nothing to do\n",
        "",
    ),
    (
        "an inventory that is out of date is believed",
        "restart",
        "if not worker.resuming or inventory.restarts != self.restarts:",
        "if not worker.resuming:",
    ),
    (
        "an inventory is believed twice",
        "restart",
        "if not worker.resuming or inventory.restarts != self.restarts:",
        "if inventory.restarts != self.restarts:",
    ),
    (
        "a slow attempt is raced on its own worker",
        "scheduler",
        "if worker is not None and worker.name != attempt.worker:",
        "if worker is not None:",
    ),
]


def survives(package: Path, module: str, old: str, new: str) -> bool:
    """Whether the tests pass with `old` replaced by `new` in a module of the copied package's core."""
    path = package / "core" / f"{module}.py"
    text = path.read_text()
    if text.count(old) != 1:
        raise SystemExit(f"core/{module}.py has this text {text.count(old)} times, not once:\n{old}")
    path.write_text(text.replace(old, new))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
        environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=ROOT / "tests", env=environment, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise SystemExit(f"the tests do not run:\n{done.stdout}{done.stderr}")
        return done.returncode == 0
    finally:
        path.write_text(text)


def main() -> int:
    """Try every bug; 1 when the tests miss one."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "zmqmr"
        shutil.copytree(ROOT / "zmqmr", package, ignore=shutil.ignore_patterns("__pycache__"))
        survivors = []
        for what, module, old, new in MUTANTS:
            lives = survives(package, module, old, new)
            print(f"{'NOT NOTICED' if lives else 'noticed'}: {what}", flush=True)
            survivors += [what] * lives
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
