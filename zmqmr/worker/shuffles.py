"""The shuffles of a job on this worker: the partitions that it owns, stage by stage."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from zmqmr.core.plan import StagePlan, stage_of
from zmqmr.errors import SpillError
from zmqmr.net.frames import FrameHeader
from zmqmr.settings import Settings
from zmqmr.worker.partitions import Partitions


class Shuffles:
    """The partitions that this worker owns of one job. Those of a stage are made when they are needed."""

    def __init__(
        self,
        plans: Sequence[StagePlan],
        directories: Sequence[str],
        sort: Sequence[str],
        settings: Settings,
        slots: int,
    ):
        """`plans`: of the job's stages. `directories`: the job's own on this worker, one for each drive.
        `sort`: the job's sort command."""
        self._plans, self._directories, self._sort = plans, directories, sort
        self._settings, self._slots = settings, slots
        self._stages: dict[int, Partitions] = {}
        self._ended: dict[int, int] = {}  # stage -> version of the owners to whom nothing is to be sent
        self._discarded: dict[int, list[tuple[str, int]]] = {}  # attempts, of stages that are not made yet

    def of(self, stage: int) -> Partitions:
        """The partitions of a stage's output. OSError when their directories cannot be made."""
        self._ended.pop(stage, None)
        partitions = self._stages.get(stage)
        if partitions is None:
            partitions = self._stages[stage] = Partitions(
                [os.path.join(each, f"shuffle-{stage}") for each in self._directories],
                self._sort,
                self._settings.sort_memory,
                self._settings.run_bytes,
                self._settings.hold_bytes,
                self._slots,
            )
            for task, attempt in self._discarded.pop(stage, ()):
                partitions.discard(task, attempt)
        return partitions

    @property
    def descriptors(self) -> list[int]:
        """Readable when a sort has ended; then call `serve`."""
        return [descriptor for each in self._stages.values() for descriptor in each.descriptors]

    def serve(self, ready: set[int]) -> None:
        """Take over the runs of sorts that have ended."""
        for partitions in self._stages.values():
            for descriptor in partitions.descriptors:
                if descriptor in ready:
                    partitions.sort_ended(descriptor)

    def receive(self, header: FrameHeader, payload: bytes) -> None:
        """A frame has arrived. It is held if it may be of use."""
        if not self._is_wanted(header):
            return
        try:
            self.of(header.stage).receive(header, payload)
        except SpillError as error:
            self.refuse(header, error)
        except OSError as error:  # there is not even a directory; the attempt's commit says so
            if header.sequence == 0:
                print(f"zmqmr: frames of {header.task} cannot be kept: {error}", file=sys.stderr)

    def refuse(self, header: FrameHeader, error: SpillError) -> None:
        """A frame could not be kept: the attempt's commit will fail for this reason."""
        if self._is_wanted(header):
            with suppress(OSError):
                self.of(header.stage).refuse(header, error)

    def _is_wanted(self, header: FrameHeader) -> bool:
        """Whether the job has such a partition, and its owners were not told meanwhile that it is done with.
        What comes late would be held until the job ends."""
        if header.stage >= len(self._plans) or header.partition >= self._plans[header.stage].partitions:
            return False
        return header.version > self._ended.get(header.stage, -1)

    def reset(self, stage: int, number: int) -> None:
        """A partition is damaged: it is made again from the beginning."""
        if partitions := self._stages.get(stage):
            partitions.reset(number)

    def discard(self, task: str, attempt: int) -> None:
        """Forget an attempt's frames, those that are still to come too."""
        stage = stage_of(task)
        if partitions := self._stages.get(stage):
            partitions.discard(task, attempt)
        elif self._plans[stage].partitions:
            self._discarded.setdefault(stage, []).append((task, attempt))

    def end_stage(self, stage: int, version: int) -> list[str]:
        """Nobody reads a stage's partitions any more, nor what was sent to their owners up to that version.
        The coordinator may need them once more, with owners of a later version. The directories that the
        caller removes, which may take long."""
        self._ended[stage] = version
        self._discarded.pop(stage, None)
        partitions = self._stages.pop(stage, None)
        if partitions is None:
            return []
        partitions.remove()
        ended = []
        for directory in partitions.directories:
            with suppress(OSError):
                os.rename(directory, f"{directory}.{version}")
                ended.append(f"{directory}.{version}")
        return ended

    def close(self) -> None:
        """Stop sorting; the caller removes the directories."""
        for partitions in self._stages.values():
            partitions.remove()
