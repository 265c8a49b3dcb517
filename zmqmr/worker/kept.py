"""What is kept of a job on its worker: the spools of committed attempts, part files, records left out.

Kept spools outlive the agent, and the job if it fails: whoever finds them again need not run their tasks.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Literal

from zmqmr.core.keys import Keys
from zmqmr.core.plan import StagePlan, keeps_tasks, number_of
from zmqmr.data.outputs import SKIPPED, SUCCESS, TEMPORARY, remove_empty_directories
from zmqmr.data.places import SPOOLS
from zmqmr.data.spools import Shelf, Spool, SpoolWriter
from zmqmr.errors import Corrupt, SpillError
from zmqmr.messages import AttemptDone, JobSpec, Launch, Seal
from zmqmr.worker.partitions import spill_error
from zmqmr.worker.surroundings import surroundings


def part_name(number: int, compress: str) -> str:
    """The name of a task's output file."""
    return f"part-{number:05d}" + (f".{compress}" if compress else "")


class Kept:
    """What is kept of one job on this worker, and where its attempts write before it is."""

    def __init__(self, spec: JobSpec, plans: tuple[StagePlan, ...], directories: Sequence[str]):
        """`directories`: the job's own on this worker, one for each drive."""
        self._spec, self._plans, self._directories = spec, plans, directories
        self._shelves = [Shelf(os.path.join(each, SPOOLS)) for each in directories]
        self._parts: list[str] = []  # part files
        self._written_to: set[str] = set()  # directories of part files
        self.seals: dict[str, Seal] = {}  # of part files that a later stage reads

    # --- spools ------------------------------------------------------------------------------

    def find_tasks(self, check: Callable[[], None]) -> tuple[str, ...]:
        """The tasks whose spools are here, and those that are taken over from an earlier run. Spools that
        are of no use to the job are dropped. With thousands of them it takes long: `check` is called now and
        then, and may raise."""
        if not any(keeps_tasks(self._spec, plan) for plan in self._plans):
            return ()
        keys, taken = self._keys, self._earlier_shelves()
        if not any(shelf.list_keys() for shelf in (*self._shelves, *(earlier for _, earlier in taken))):
            return ()
        tasks = {
            keys.of(plan.number, number): plan.task(number)
            for plan in self._plans
            if keeps_tasks(self._spec, plan)
            for number in range(plan.tasks)
        }
        for shelf, earlier in taken:
            for key in earlier.list_keys():
                check()
                if key in tasks and not _left_out(earlier, key):
                    shelf.take_over(earlier, key)
        for shelf in self._shelves:
            for key in set(shelf.list_keys()) - set(tasks):
                shelf.drop(key)
        return tuple(sorted(tasks[key] for shelf in self._shelves for key in shelf.list_keys()))

    def _earlier_shelves(self) -> list[tuple[Shelf, Shelf]]:
        """The shelves that take something over, each with that of the run that this one resumes. On one
        machine that run is named by a directory; on a cluster by its job, of which each worker has a part."""
        if not self._spec.reuse:
            return []
        if not self._spec.stored:
            return [(self._shelves[0], Shelf(self._spec.reuse))]
        earlier = [Shelf(os.path.join(each, SPOOLS)) for each in self.earlier_directories()]
        return list(zip(self._shelves, earlier, strict=True)) if earlier else []

    def earlier_directories(self) -> list[str]:
        """Those of the job of this cluster that this one resumes."""
        name = self._spec.reuse
        if not self._spec.stored or name in ("", ".", "..") or "/" in name:
            return []
        return [os.path.join(os.path.dirname(each), name) for each in self._directories]

    @cached_property
    def _keys(self) -> Keys:
        """Made where nobody waits for it: it looks at the drive, and may ask another interpreter."""
        return Keys(self._spec, self._plans, surroundings(self._spec.task_python))

    def _key(self, launch: Launch) -> str:
        return self._keys.of(launch.stage, launch.number)

    def _shelf(self, key: str) -> Shelf | None:
        """The shelf on which a spool is."""
        return next((shelf for shelf in self._shelves if os.path.exists(shelf.path(key))), None)

    def find_spool(self, launch: Launch) -> tuple[AttemptDone, Spool]:
        """The kept spool of a task and the report of the attempt that wrote it. SpillError when there is
        none, or it is damaged."""
        key = self._key(launch)
        shelf = self._shelf(key)
        if shelf is None:
            raise Corrupt(f"there is no spool of {launch.task} any more")
        return shelf.report(key), Spool(shelf.path(key))

    def _shelf_beside(self, directory: str) -> Shelf:
        """The shelf on the drive of an attempt's directory: nothing can be renamed onto another drive."""
        return next(each for each in self._shelves if directory.startswith(_parent(each)))

    def keep_spool(self, launch: Launch, directory: str, output: str, done: AttemptDone | None) -> Spool:
        """An attempt's spool, now the task's; an earlier attempt's stands, if it holds the same.
        `directory`, `output`: of the attempt. `done`: its report. SpillError when it cannot be kept."""
        key = self._key(launch)
        shelf = self._shelf(key)
        fresh = None if launch.replay else done
        if shelf is not None and fresh is not None and not _holds(shelf.path(key), fresh):
            shelf.drop(key)
            shelf = None
        if shelf is None and done is not None:
            shelf = self._shelf_beside(directory)
            try:
                shelf.keep(key, output, done)
            except OSError as error:
                raise spill_error(error, shelf.path(key)) from error
        if shelf is None:
            raise Corrupt(f"there is no spool of {launch.task} any more")
        return Spool(shelf.path(key))

    def drop_spool(self, launch: Launch) -> None:
        """A task's spool is of no use."""
        for shelf in self._shelves:
            shelf.drop(self._key(launch))

    def drop_damaged(self, path: str) -> None:
        """A file is damaged. If it is a kept spool, that is of no use to anybody."""
        for shelf in self._shelves:
            if os.path.dirname(path) == shelf.directory:
                shelf.drop(os.path.basename(path).partition(".")[0])

    # --- part files --------------------------------------------------------------------------

    def parts_directory(self, plan: StagePlan) -> str:
        """Where a stage's part files go."""
        if plan.output_step == len(self._spec.steps) - 1:
            return self._spec.output_dir
        if self._spec.step_output_dir:
            return os.path.join(self._spec.step_output_dir, f"{plan.output_step:04d}")
        return os.path.join(self._directories[0], f"stage-{plan.number}")

    def compress(self, plan: StagePlan) -> Literal["", "gz", "bz2"]:
        """How a stage's part files are compressed."""
        return self._spec.steps[plan.output_step].compress if plan.number == len(self._plans) - 1 else ""

    def part(self, plan: StagePlan, number: int) -> str:
        """The path of a task's part file."""
        return os.path.join(self.parts_directory(plan), part_name(number, self.compress(plan)))

    def place_aside(self, plan: StagePlan, name: str) -> str:
        """Where an attempt writes what is to become a part file. OSError when that cannot be made."""
        parts = self.parts_directory(plan)
        os.makedirs(os.path.join(parts, TEMPORARY), exist_ok=True)
        self._written_to.add(parts)
        return os.path.join(parts, TEMPORARY, name)

    def has_output(self, plan: StagePlan, task: str) -> bool:
        """Whether the spool or the part file of a task is here."""
        number = number_of(task)
        if plan.partitions:
            return self._shelf(self._keys.of(plan.number, number)) is not None
        return os.path.exists(self.part(plan, number))

    def keep_part(self, output: str, target: str, stage: int, done: AttemptDone | None) -> None:
        """What an attempt wrote becomes the task's part file. SpillError when it cannot. `done`: its
        report."""
        try:
            if done is not None and any(plan.source == stage for plan in self._plans):
                (count,) = done.frames
                self.seals[target] = Seal(target, count.bytes, count.crc32)
            os.replace(output, target)
            self._parts.append(target)
        except OSError as error:
            raise SpillError(f"cannot move {output} to {target}: {error.strerror}", target) from error

    def keep_report(self, launch: Launch, directory: str, done: AttemptDone) -> None:
        """What a task yielded is in the coordinator's store: its report says so, beside a spool with nothing
        in it. `directory`: the attempt's. SpillError when it cannot be kept."""
        path = os.path.join(directory, "spool")
        try:
            SpoolWriter(path).close()
            self._shelf_beside(directory).keep(self._key(launch), path, done)
        except OSError as error:
            raise spill_error(error, path) from error

    def keep_skipped(self, directory: str, task: str) -> None:
        """The records that an attempt left out, as a file in the output directory that readers ignore.
        `directory`: the attempt's."""
        skipped = os.path.join(directory, SKIPPED)
        if os.path.exists(skipped):
            target = os.path.join(self._spec.output_dir, f"_{SKIPPED}")
            os.makedirs(target, exist_ok=True)
            shutil.move(skipped, os.path.join(target, task))

    def take_back(self) -> None:
        """Remove the output that is not marked complete."""
        for directory in self._written_to:
            if os.path.exists(os.path.join(directory, SUCCESS)):
                continue
            for path in self._parts:
                if os.path.dirname(path) == directory:
                    with suppress(OSError):
                        os.unlink(path)
            shutil.rmtree(os.path.join(directory, TEMPORARY), ignore_errors=True)
        if not os.path.exists(os.path.join(self._spec.output_dir, SUCCESS)):
            shutil.rmtree(os.path.join(self._spec.output_dir, f"_{SKIPPED}"), ignore_errors=True)
        remove_empty_directories(self._spec.made)


def _parent(shelf: Shelf) -> str:
    return os.path.dirname(shelf.directory) + os.sep


def _holds(path: str, done: AttemptDone) -> bool:
    """Whether the spool at `path` has what an attempt reports."""
    try:
        parts = Spool(path).parts.values()
    except SpillError:
        return False
    found = {(part.partition, part.bytes, part.crc32) for part in parts}
    return found == {(count.partition, count.bytes, count.crc32) for count in done.frames}


def _left_out(shelf: Shelf, key: str) -> bool:
    """Whether records were left out of what a spool was made from; the file of those is gone."""
    try:
        counters = shelf.report(key).counters
    except SpillError:
        return True
    return any("skipped_records" in groups.get("zmqmr", {}) for groups in counters.values())
