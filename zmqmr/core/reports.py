"""What workers say about attempts, and what becomes of their tasks: commits, failures, records left out."""

from msgspec.structs import replace

from zmqmr.core.plan import keeps_tasks
from zmqmr.core.repair import Repair
from zmqmr.core.state import NOTHING, Attempt, Job, Stage, Task, TaskState, Worker, signature
from zmqmr.messages import (
    LARGEST_COUNTER,
    AttemptDone,
    AttemptFailed,
    AttemptProgress,
    Commit,
    CommitFailed,
    Committed,
    Discard,
    Failure,
    FrameCount,
    Notice,
    Opened,
    OpenFailed,
    RecordAt,
)

OPENINGS = 4  # failures of each worker to open a job that nobody has opened, before it fails
ROOM_SECONDS, MOST_ROOM_SECONDS = 0.5, 30.0  # to wait for room on a full drive: doubles with each failure
UNREACHABLE = 4  # times that what a task yielded could not be delivered, before its job fails


def _delay(failures: int) -> float:
    """Seconds until what failed so often for want of room is tried again; anything else is tried at once."""
    return min(MOST_ROOM_SECONDS, ROOM_SECONDS * 2.0 ** min(failures - 1, 16))


class Reports(Repair):
    """A report is believed when it is about an attempt that its sender runs, or a commit it takes part in."""

    def __init__(self, worker_timeout_seconds: float, max_counters: int, exclude_failures: int):
        super().__init__(exclude_failures)
        self.worker_timeout_seconds = worker_timeout_seconds
        self.max_counters = max_counters

    # --- a job's begin on a worker -----------------------------------------------------------

    def _opened(self, worker: Worker, job: Job, report: Opened) -> None:
        job.opened.add(worker.name)
        job.awaited.discard(worker.name)
        job.unopened.pop(worker.name, None)
        found = False
        for name in report.kept:
            task = job.by_name.get(name)
            if task is not None and task.spool is None and keeps_tasks(job.spec, job.plans[task.stage]):
                task.spool, found = worker.name, True
                if not task.attempt:
                    job.stages[task.stage].reused += 1
        if (found or not job.settled) and not job.awaited:
            self._settle(job)
        self._advance(job)  # there may be nothing to do
        self._offer(worker)

    def _open_failed(self, worker: Worker, job: Job, report: OpenFailed) -> None:
        """A worker cannot run the job. If no other one could, that is its end; otherwise those that can go on
        without it, and it is asked again."""
        failure = report.failure
        job.awaited.discard(worker.name)
        if worker.name in job.opened and not failure.fatal:
            return  # it came late
        times = job.unopened.get(worker.name, (0, 0.0))[0] + 1
        job.unopened[worker.name] = times, self._now + _delay(times)
        if not failure.fatal and not self._nobody_opens(job):
            self._do_without(worker, job, failure, times)
            return
        if job.stage.tasks:
            self._explain(worker, job, job.stage.tasks[0], failure, final=True, began=False)
        self._end(job, "failed", failure.reason)

    def _nobody_opens(self, job: Job) -> bool:
        return not job.opened and all(
            job.unopened.get(name, (0, 0.0))[0] >= OPENINGS for name in self.workers
        )

    def _do_without(self, worker: Worker, job: Job, failure: Failure, times: int) -> None:
        if times == 1:
            text = f"{worker.name} on {worker.host}: {failure.reason}; it is asked again, others go on"
            self._inform(job, Notice(job.spec.job, text))
        for stage in job.stages:
            stage.disown([number for number, owner in enumerate(stage.owners) if owner == worker.name])
        self._settle(job)
        self._commit_without(job, worker.name)

    # --- attempts ----------------------------------------------------------------------------

    def _running(
        self, worker: Worker, job: Job, report: AttemptProgress | AttemptDone | AttemptFailed
    ) -> tuple[Task, Attempt] | None:
        """The task and attempt that a report is about, if its sender runs it."""
        task = job.by_name.get(report.task)
        attempt = task.running(report.attempt) if task is not None else None
        if task is None or attempt is None or attempt.worker != worker.name:
            return None
        return task, attempt

    def _attempt_progress(self, worker: Worker, job: Job, report: AttemptProgress) -> None:
        found = self._running(worker, job, report)
        if found is None:
            return
        task, attempt = found
        attempt.progressed = self._now
        attempt.records, attempt.bytes = report.records, report.bytes
        if report.status:
            job.stages[task.stage].status = report.status
        job.changed = True

    def _attempt_done(self, worker: Worker, job: Job, report: AttemptDone) -> None:
        found = self._running(worker, job, report)
        if found is None:
            return
        if any(int(step) >= len(job.spec.steps) for step in report.counters):
            failure = Failure("its worker reports counters of a step that the job does not have")
            failed = AttemptFailed(report.job, report.task, report.attempt, report.epoch, failure)
            self._attempt_failed(worker, job, failed)
            return
        task, attempt = found
        stage = job.stages[task.stage]
        self._gone(job, task, attempt)
        job.changed = True
        if attempt.superseded:
            self._discard(job, task, attempt.number)
        elif not task.counted and self._too_many_counters(job, report):
            reason = (
                f"the job has more than {self.max_counters} different counters; count fewer things or raise"
                " ZMQMR_MAX_COUNTERS, on a cluster in its hosts' /etc/zmqmr/settings"
            )
            self._end(job, "failed", reason)
        elif not task.counted and (name := self._too_large(job, report)):
            reason = f"the job's counter {name} exceeds {LARGEST_COUNTER}; count in larger units"
            self._end(job, "failed", reason)
        elif stage.plan.partitions and task.signature not in (None, signature(report)):
            self._begin_anew(job, task)
        elif self._undelivered(worker, job, task, attempt, report):
            self._commit(worker, job, task, attempt, report)

    def _undelivered(
        self, worker: Worker, job: Job, task: Task, attempt: Attempt, report: AttemptDone
    ) -> bool:
        """Note the owners that an attempt could not reach; False when that ends the job. One that is lost is
        replaced; with one that lives, only the way between the two is broken: another worker may have one."""
        stage = job.stages[task.stage]
        owners = {
            stage.owners[number]
            for number in report.undelivered
            if number in stage.owned and stage.assigned[number] <= attempt.version
        }
        hosts = sorted(self.workers[name].host for name in owners if name in self.workers)
        if not hosts:
            return True
        task.unreachable += 1
        task.wait_until = self._now + self.worker_timeout_seconds  # by then it is known whether they live
        task.failed_on |= {worker.name}
        self._note(job, task, f"{worker.name} could not reach the owners of its partitions on {hosts}")
        if task.unreachable >= UNREACHABLE:
            reason = (
                f"{task.name} could not deliver its records {task.unreachable} times, the last time from host"
                f" {worker.host} to host {', '.join(hosts)}; look at the network between them"
            )
            self._end(job, "failed", reason)
            return False
        return True

    def _commit(self, worker: Worker, job: Job, task: Task, attempt: Attempt, report: AttemptDone) -> None:
        """Ask everyone who has got records, and whoever ran the attempt, to keep what they have."""
        stage = job.stages[task.stage]
        job.active[task.name] = task
        task.state, task.worker, task.committing = TaskState.COMMITTING, worker.name, attempt.number
        task.done, task.done_at = report, self._now
        task.delivering = self._delivered(stage, attempt, report)
        if not attempt.replay:
            stage.durations.append(self._now - attempt.since)
        self._note(job, task, f"attempt {attempt.number} done on {worker.name}, committing")
        for rival in task.attempts:
            rival.superseded = True
            self._kill(job, task, rival)
        parts = self._counts_by_owner(stage, task)
        task.awaited = frozenset(parts)
        for name, counts in parts.items():
            self._tell(name, Commit(job.spec.job, task.name, attempt.number, task.stage, counts))

    def _delivered(self, stage: Stage, attempt: Attempt, report: AttemptDone) -> frozenset[int]:
        """The partitions whose owners have all of the attempt's records, if they have the owners of then."""
        wanted = stage.owned if attempt.wanted is None else stage.owned & attempt.wanted
        if attempt.version != stage.version:
            wanted = frozenset(number for number in wanted if stage.assigned[number] <= attempt.version)
        return wanted - frozenset(report.undelivered)

    def _counts_by_owner(self, stage: Stage, task: Task) -> dict[str, tuple[FrameCount, ...]]:
        assert task.done is not None and task.worker is not None
        parts: dict[str, list[FrameCount]] = {task.worker: []}
        for count in task.done.frames:
            if count.bytes and count.partition in task.delivering:
                owner = stage.owners[count.partition]
                assert owner is not None
                parts.setdefault(owner, []).append(count)
        return {name: tuple(counts) for name, counts in parts.items()}

    def _too_many_counters(self, job: Job, report: AttemptDone) -> bool:
        known = sum(len(names) for step in job.counters for names in step.values())
        new = sum(len(names) for step in report.counters.values() for names in step.values())
        return known + new > self.max_counters and self._distinct_counters(job, report) > self.max_counters

    @staticmethod
    def _too_large(job: Job, report: AttemptDone) -> str:
        """The name of a counter that a message could not bear any more; "" if there is none."""
        for step, groups in report.counters.items():
            for group, names in groups.items():
                known = job.counters[int(step)].get(group, {})
                for name, amount in names.items():
                    if abs(known.get(name, 0) + amount) > LARGEST_COUNTER:
                        return f"{group}/{name}"
        return ""

    @staticmethod
    def _distinct_counters(job: Job, report: AttemptDone) -> int:
        distinct = {
            (str(step), group, name)
            for step, groups in enumerate(job.counters)
            for group, names in groups.items()
            for name in names
        }
        for step, groups in report.counters.items():
            distinct.update((step, group, name) for group, names in groups.items() for name in names)
        return len(distinct)

    # --- commits -----------------------------------------------------------------------------

    def _commits(self, worker: Worker, job: Job, report: Committed | CommitFailed) -> Task | None:
        """The task whose commit a report is about, if its sender takes part in it."""
        task = job.by_name.get(report.task)
        if task is None or task.state is not TaskState.COMMITTING or task.committing != report.attempt:
            return None
        return task if worker.name in task.awaited else None

    def _committed(self, worker: Worker, job: Job, report: Committed) -> None:
        task = self._commits(worker, job, report)
        if task is not None:
            self._confirm(worker.name, job, task)

    def _confirm(self, name: str, job: Job, task: Task) -> None:
        """A worker has done its part of a commit."""
        assert task.done is not None
        task.files = task.done.files
        if job.plans[task.stage].partitions:
            task.signature = signature(task.done)
            if name == task.worker:
                task.spool = name
        self._take_part(name, job, task)

    def _take_part(self, name: str, job: Job, task: Task) -> None:
        """A worker's part of a commit is over, well or badly; the last one decides about the task."""
        task.awaited -= {name}
        if task.awaited:
            return
        stage = job.stages[task.stage]
        report, task.done = task.done, None
        assert report is not None
        missing = task.missing if task.missing is not None else frozenset(range(stage.plan.partitions))
        task.missing = missing - task.delivering or NOTHING
        for count in report.frames:
            if count.partition in task.delivering:
                stage.volume[count.partition] += count.bytes
        task.delivering = NOTHING
        if not task.attempts:
            del job.active[task.name]
        job.changed = True
        if task.missing & stage.owned:
            task.state = TaskState.READY
            if task.unreachable > 1 and stage.plan.source is None:
                task.spool = None  # its worker has tried twice: another one may reach the owners
            if task.spool is None:
                self._settle(job)
            else:
                self._queue(job, task)
            return
        task.state = TaskState.DONE
        task.story = ()
        stage.done += 1
        if not task.counted:
            task.counted = True
            stage.records += report.records
            stage.bytes += report.bytes
            job.count(report.counters)
        self._advance(job)

    def _advance(self, job: Job) -> None:
        """Go on with the first stage that is not finished; end the job after the last."""
        if not job.stage.finished or not job.settled:
            return
        while job.stage.finished:
            source = job.source(job.stage)
            if source is not None:
                self._free(job, source)
            if job.current + 1 == len(job.stages):
                self._end(job, "succeeded", "")
                return
            self._update(job)
            job.current += 1
            self._settle(job)

    def _commit_failed(self, worker: Worker, job: Job, report: CommitFailed) -> None:
        task = self._commits(worker, job, report)
        if task is not None:
            self._refuse_part(worker, job, task, report.failure)

    def _refuse_part(self, worker: Worker, job: Job, task: Task, failure: Failure) -> None:
        """A worker could not keep what it was to keep: what it has not got is delivered again."""
        if not self._charge(worker, job, task, failure):
            return
        stage = job.stages[task.stage]
        if stage.plan.partitions:
            self._tell(worker.name, Discard(job.spec.job, task.name, task.committing))
            refused = {number for number in task.delivering if stage.owners[number] == worker.name}
            task.delivering -= refused
            self._take_part(worker.name, job, task)
            if failure.no_room and self._is_live(job):
                self._move(job, stage, range(stage.plan.partitions), worker.name)
        else:
            self._give_back(job, task)

    def _give_back(self, job: Job, task: Task) -> None:
        """The part file of a task that commits is lost: it runs again."""
        self._discard(job, task, task.committing)
        task.state, task.done, task.awaited = TaskState.READY, None, frozenset()
        if not task.attempts:
            del job.active[task.name]
        self._queue(job, task)

    def _commit_without(self, job: Job, name: str) -> None:
        """Commits that a worker took part in go on with the others: it is lost, or could not open the job."""
        for task in list(job.active.values()):
            if task.state is not TaskState.COMMITTING or name not in task.awaited:
                continue
            if job.plans[task.stage].partitions:
                self._take_part(name, job, task)
            else:
                self._give_back(job, task)

    # --- failures ----------------------------------------------------------------------------

    def _attempt_failed(self, worker: Worker, job: Job, report: AttemptFailed) -> None:
        found = self._running(worker, job, report)
        if found is None:
            return
        task, attempt = found
        self._gone(job, task, attempt)
        job.changed = True
        self._discard(job, task, attempt.number)
        if attempt.superseded:
            return
        failure = report.failure
        if attempt.kill_reason:  # its end was our doing; where it was when it ended is worth knowing
            failure = replace(failure, reason=attempt.kill_reason, crashed=True, fatal=False, damaged=False)
        if attempt.replay:
            self._note(job, task, f"no replay by {worker.name}: {failure.reason}")
            if task.spool == worker.name:
                task.spool = None
                if attempt.number == 1:
                    job.stages[task.stage].reused -= 1
            self._settle(job)
        elif self._charge(worker, job, task, failure):
            if failure.damaged and job.plans[task.stage].source is not None:
                self._lose_input(job, task)
            elif task.state is TaskState.READY and not self._move_input(worker, job, task, failure):
                self._queue(job, task)

    def _move_input(self, worker: Worker, job: Job, task: Task, failure: Failure) -> bool:
        """Whether a partition that could not be sorted for want of room goes to another worker."""
        plan = job.plans[task.stage]
        source = job.source(job.stages[task.stage])
        if not failure.no_room or plan.kind != "reduce" or source is None:
            return False
        return self._move(job, source, [task.number], worker.name)

    def _charge(self, worker: Worker, job: Job, task: Task, failure: Failure) -> bool:
        """One more failure of a task; False when that ends the job."""
        task.failures += 1
        task.failed_on |= {worker.name}
        job.stages[task.stage].failures += 1
        self._note(job, task, f"attempt {task.attempt} failed on {worker.name}: {failure.reason}")
        job.failed_on[worker.name] = job.failed_on.get(worker.name, 0) + 1
        if failure.no_room:
            task.wait_until = self._now + _delay(task.failures)
        task.careful = task.careful or failure.crashed
        skips = self._skip(job, task, failure)
        final = not skips and (failure.fatal or task.failures >= self._attempts_allowed(job, task))
        self._explain(worker, job, task, failure, final, left_out=skips)
        if final:
            times = "once" if task.failures == 1 else f"{task.failures} times"
            self._end(
                job, "failed", f"{task.name} failed {times}: {failure.reason}{self._enough(job, failure)}"
            )
        return not final

    @staticmethod
    def _enough(job: Job, failure: Failure) -> str:
        """What to say of a record that might have been left out, had there not been others before."""
        limit = job.spec.skip_bad_records
        if failure.offset is None or not 0 < limit <= job.skipped:
            return ""
        left_out = "1 record was" if limit == 1 else f"{limit} records were"
        return f" ({left_out} left out before; --skip-bad-records {limit} allows no more)"

    def _skip(self, job: Job, task: Task, failure: Failure) -> bool:
        """Leave a record out that failed two attempts in a row, if the job may; whether that was done.
        An attempt that only found such a record costs the task no failure."""
        at = RecordAt(failure.path, failure.offset) if failure.offset is not None else None
        again, task.suspect = at is not None and at == task.suspect, at
        if not again or at is None or failure.fatal or job.plans[task.stage].source is not None:
            return False
        if job.skipped >= job.spec.skip_bad_records:
            return False
        job.skipped += 1
        task.skip += (at,)
        task.failures = 0
        self._note(job, task, f"leaves out the record at byte {at.offset} of {at.path}")
        return True
