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
TESTS = ("core/test_restart.py", "core/test_records.py", "core/test_scheduler.py")

# What the bug is, the scheduler's text (found exactly once), what takes its place.
MUTANTS = [
    ("what was committed before a restart is committed again", "if attempt in committed:", "if False:"),
    ("an attempt that no worker holds is waited for", "elif attempt not in running:", "elif False:"),
    (
        "a record is left out after one failure",
        "again, task.suspect = at is not None and at == task.suspect, at",
        "again, task.suspect = at is not None, at",
    ),
    (
        "reports of an old epoch are believed",
        "if worker is None or event.message.epoch != worker.epoch:",
        "if worker is None:",
    ),
    (
        "reports of an old attempt are believed",
        "task.state is not state or task.attempt != report.attempt:",
        "task.state is not state:",
    ),
    (
        "reports of the wrong worker are believed",
        "if state is TaskState.RUNNING and task.worker != worker.name:",
        "if False:",
    ),
    (
        "the first confirmation is taken for all",
        "if task.awaited or task.done is None:",
        "if task.done is None:",
    ),
    (
        "a failed commit of a shuffle runs the task again beside its own records",
        "elif task.state is TaskState.COMMITTING and job.plans[task.stage].partitions:",
        "elif False:",
    ),
    (
        "anyone can make a commit fail",
        "if task is not None and worker.name in task.awaited:",
        "if task is not None:",
    ),
    (
        "a failure too many is allowed",
        "task.failures >= self._attempts_allowed(job, task)",
        "task.failures > self._attempts_allowed(job, task)",
    ),
    (
        "a failure that would repeat is retried",
        "final = failure.fatal or ",
        "final = ",
    ),
    (
        "an attempt that ends does not free its slot",
        "        worker.free += 1\n",
        "",
    ),
    (
        "a job that ends does not free its slots",
        "        for task in job.stage.active.values():\n"
        "            if task.state is TaskState.RUNNING and task.worker in self.workers:\n"
        "                self.workers[task.worker].free += 1\n",
        "",
    ),
    (
        "an attempt number is used again",
        "        task.attempt += 1\n",
        "        task.attempt = task.failures + 1\n",
    ),
    (
        "the reason of a kill is forgotten",
        "task.kill_failure or report.failure",
        "report.failure",
    ),
    (
        "a lost worker's tasks are not run again",
        "            self._requeue_attempts_of(job, worker)\n",
        "",
    ),
    (
        "a lost worker's data is not missed",
        "                if self._held_data(job, name):\n",
        "                if False:\n",
    ),
    (
        "one job gets all slots",
        "key=lambda job: job.stage.running)",
        "key=lambda job: job.spec.job)",
    ),
    (
        "lost frames are waited for for ever",
        "                yield CommitOverdue(job.spec.job, task.name, task.attempt)\n",
        "                pass\n",
    ),
    (
        "no kill for lack of progress",
        "                yield AttemptSilent(job.spec.job, task.name, task.attempt)\n",
        "                pass\n",
    ),
    (
        "counters of a new beginning are added to the old ones",
        "        job.count(task.done.counters)\n",
        "        job.count(task.done.counters)\n        job.count(task.done.counters)\n",
    ),
    (
        "a reduce task runs anywhere",
        "            return worker if worker is not None and worker.takes_work else None\n",
        "            return next((each for each in self.workers.values() if each.takes_work), None)\n",
    ),
    (
        "a stage without tasks never ends",
        "        if not stage.tasks and self.workers:\n",
        "        if False:\n",
    ),
]


def survives(package: Path, old: str, new: str) -> bool:
    """Whether the tests pass with `old` replaced by `new` in the scheduler of the copied package."""
    scheduler = package / "core" / "scheduler.py"
    text = scheduler.read_text()
    if text.count(old) != 1:
        raise SystemExit(
            f"the scheduler has this text {text.count(old)} times, not once; change it here:\n{old}"
        )
    scheduler.write_text(text.replace(old, new))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
        environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=ROOT / "tests", env=environment, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise SystemExit(f"the tests do not run:\n{done.stdout}{done.stderr}")
        return done.returncode == 0
    finally:
        scheduler.write_text(text)


def main() -> int:
    """Try every bug; 1 when the tests miss one."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "zmqmr"
        shutil.copytree(ROOT / "zmqmr", package, ignore=shutil.ignore_patterns("__pycache__"))
        survivors = []
        for what, old, new in MUTANTS:
            lives = survives(package, old, new)
            print(f"{'NOT NOTICED' if lives else 'noticed'}: {what}", flush=True)
            survivors += [what] * lives
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
