"""The shuffles of a job on this worker: the partitions that it owns, stage by stage."""

import os
import shutil
import sys
from collections.abc import Sequence

from zmqmr.errors import SpillError
from zmqmr.net.frames import FrameHeader
from zmqmr.settings import Settings
from zmqmr.worker.partitions import Partitions


class Shuffles:
    """The partitions that this worker owns of one job. Those of a stage are made when they are needed."""

    def __init__(self, directories: Sequence[str], sort: Sequence[str], settings: Settings, slots: int):
        """`directories`: the job's own on this worker, one for each drive. `sort`: the job's sort command."""
        self._directories, self._sort, self._settings, self._slots = directories, sort, settings, slots
        self._stages: dict[int, Partitions] = {}

    def of(self, stage: int) -> Partitions:
        """The partitions of a stage's output. OSError when their directories cannot be made."""
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
        """A frame has arrived."""
        try:
            self.of(header.stage).receive(header, payload)
        except SpillError as error:
            self.refuse(header, error)
        except OSError as error:  # there is not even a directory; the attempt's commit misses the frame
            print(f"zmqmr: a frame of {header.task} cannot be kept: {error}", file=sys.stderr)

    def refuse(self, header: FrameHeader, error: SpillError) -> None:
        """A frame could not be kept: the attempt's commit will fail for this reason."""
        self.of(header.stage).refuse(header, error)

    def reset(self, stage: int, number: int) -> None:
        """A partition is damaged: it is made again from the beginning."""
        if partitions := self._stages.get(stage):
            partitions.reset(number)

    def discard(self, task: str, attempt: int) -> None:
        """Forget an attempt's frames."""
        for partitions in self._stages.values():
            partitions.discard(task, attempt)

    def end_stage(self, stage: int) -> None:
        """Nobody reads a stage's partitions any more."""
        partitions = self._stages.pop(stage, None)
        if partitions is not None:
            partitions.remove()
            for directory in partitions.directories:
                shutil.rmtree(directory, ignore_errors=True)

    def close(self) -> None:
        """Stop sorting; the caller removes the directories."""
        for partitions in self._stages.values():
            partitions.remove()
