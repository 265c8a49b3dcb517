"""The partitions an agent owns: frames kept apart until their attempt commits, then sorted into runs.

Memory: uncommitted frames up to `Settings.hold_bytes`, beyond that in files. Committed records are
always in files, so an agent's memory does not grow with the data.
"""

import os
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zmqmr.data.seals import seal
from zmqmr.data.sort import check_sorted, start_sort
from zmqmr.errors import Corrupt, OutOfDisk, SpillError
from zmqmr.messages import FrameCount, Seal
from zmqmr.net.frames import FrameHeader


def spill_error(error: OSError, path: str) -> SpillError:
    """What a failed write to a spill directory means."""
    if error.errno == 28:  # ENOSPC
        return OutOfDisk(f"no space left for {path}; free space there, or set TMPDIR to a larger drive", path)
    return SpillError(f"cannot write {path}: {error.strerror}", path)


@dataclass(slots=True)
class _Held:
    """The frames of one attempt that is not committed yet."""

    path: str  # where they go when memory is short
    frames: dict[int, list[bytes | tuple[int, int]]] = field(
        default_factory=dict
    )  # payload, or where in the file
    bytes: dict[int, int] = field(default_factory=dict)
    memory: int = 0  # bytes of payloads in memory
    file_bytes: int = 0
    refused: SpillError | None = None  # why a frame could not be kept

    def complete(self, counts: Sequence[FrameCount]) -> bool:
        return all(len(self.frames.get(count.partition, ())) >= count.frames for count in counts)


@dataclass(slots=True)
class _Partition:
    """Committed records of one partition: a file that grows, and sorted runs."""

    path: str
    size: int = 0  # bytes in the growing file
    runs: list[str] = field(default_factory=list)
    cuts: int = 0  # growing files handed to sort so far
    unsorted: dict[str, int] = field(default_factory=dict)  # those that are no runs yet: path -> bytes
    sorting: int = 0
    failed: SpillError | None = None


@dataclass(slots=True)
class _Sort:
    partition: "_Partition"
    source: str
    target: str
    process: "subprocess.Popen[bytes] | None" = None


class Partitions:
    """The partitions of one stage's shuffle that this worker owns."""

    def __init__(
        self,
        directory: str,
        sort: Sequence[str],
        sort_memory: str,
        run_bytes: int,
        hold_bytes: int,
        sorters: int,
    ):
        """`sorters`: sort processes at a time. The directory is made here and removed by `remove`."""
        self.directory = directory
        self._sort, self._sort_memory = sort, sort_memory
        self._run_bytes, self._hold_bytes, self._sorters = run_bytes, hold_bytes, sorters
        self._held: dict[tuple[str, int], _Held] = {}
        self._memory = 0
        self._partitions: dict[int, _Partition] = {}
        self.seals: dict[str, Seal] = {}  # of the runs
        self._queue: deque[_Sort] = deque()
        self._running: dict[int, _Sort] = {}  # by pidfd
        self._waiting: list[tuple[int, Callable[[list[str] | SpillError], None]]] = []
        os.makedirs(directory, exist_ok=True)

    # --- frames ------------------------------------------------------------------------------

    def receive(self, header: FrameHeader, payload: bytes) -> None:
        """Hold a frame until its attempt commits. SpillError when it cannot be kept."""
        held = self._held_by(header)
        frames = held.frames.setdefault(header.partition, [])
        if header.sequence != len(frames):
            raise SpillError(
                f"frame {header.sequence} of {header.task} to partition {header.partition} came"
                f" when {len(frames)} was next"
            )
        if self._memory + len(payload) > self._hold_bytes:
            frames.append(self._hold_in_file(held, payload))
        else:
            frames.append(payload)
            held.memory += len(payload)
            self._memory += len(payload)
        held.bytes[header.partition] = held.bytes.get(header.partition, 0) + len(payload)

    def _hold_in_file(self, held: _Held, payload: bytes) -> tuple[int, int]:
        try:
            with open(held.path, "ab") as file:
                file.write(payload)
        except OSError as error:
            raise spill_error(error, held.path) from error
        start = held.file_bytes
        held.file_bytes += len(payload)
        return start, len(payload)

    def refuse(self, header: FrameHeader, error: SpillError) -> None:
        """A frame could not be kept: the attempt's commit will fail for this reason."""
        self._held_by(header).refused = error

    def _held_by(self, header: FrameHeader) -> _Held:
        held = self._held.get((header.task, header.attempt))
        if held is None:
            path = os.path.join(self.directory, f"{header.task}-{header.attempt}.held")
            held = self._held[header.task, header.attempt] = _Held(path)
        return held

    def holds(self, task: str, attempt: int, counts: Sequence[FrameCount]) -> bool:
        """Whether all frames the attempt sent here have arrived."""
        if not counts:
            return True
        held = self._held.get((task, attempt))
        return held is not None and (held.refused is not None or held.complete(counts))

    def commit(self, task: str, attempt: int, counts: Sequence[FrameCount]) -> None:
        """The attempt's records join their partitions. SpillError when they cannot be written."""
        held = self._held.get((task, attempt))
        if held is None:
            return
        if held.refused is not None:
            raise held.refused
        for count in counts:
            came = held.bytes.get(count.partition, 0)
            if came != count.bytes:
                raise SpillError(
                    f"{task} sent {count.bytes} bytes to partition {count.partition}, {came} came"
                )
        for count in counts:
            self._append(count.partition, self._payloads(held, count.partition))
        self.discard(task, attempt)

    def _payloads(self, held: _Held, partition: int) -> list[bytes]:
        payloads = []
        for frame in held.frames.get(partition, ()):
            if isinstance(frame, tuple):
                with open(held.path, "rb") as file:
                    file.seek(frame[0])
                    frame = file.read(frame[1])
            payloads.append(frame)
        return payloads

    def discard(self, task: str, attempt: int) -> None:
        """Forget an attempt's frames."""
        held = self._held.pop((task, attempt), None)
        if held is not None:
            self._memory -= held.memory
            if held.file_bytes:
                os.unlink(held.path)

    # --- runs --------------------------------------------------------------------------------

    def _append(self, number: int, payloads: list[bytes]) -> None:
        partition = self._partitions.get(number)
        if partition is None:
            partition = self._partitions[number] = _Partition(
                os.path.join(self.directory, f"partition-{number}")
            )
        path = f"{partition.path}.{partition.cuts}"
        try:
            with open(path, "ab", buffering=0) as file:
                for payload in payloads:
                    view = memoryview(payload)
                    while view:
                        view = view[file.write(view) or 0 :]
                    partition.size += len(payload)
        except OSError as error:
            raise spill_error(error, path) from error
        if partition.size >= self._run_bytes:
            self._cut(partition)

    def _cut(self, partition: _Partition) -> None:
        """Hand the growing file to sort and begin a new one."""
        source = f"{partition.path}.{partition.cuts}"
        partition.unsorted[source] = partition.size
        self._queue.append(_Sort(partition, source, f"{source}.run"))
        partition.sorting += 1
        partition.cuts += 1
        partition.size = 0
        self._start_sorts()

    def _start_sorts(self) -> None:
        while self._queue and len(self._running) < self._sorters:
            sort = self._queue.popleft()
            try:
                sort.process = start_sort(
                    self._sort, self._sort_memory, self.directory, sort.source, sort.target
                )
            except OSError as error:
                sort.partition.sorting -= 1
                sort.partition.failed = SpillError(
                    f"cannot start {self._sort[0]}: {error.strerror}", sort.source
                )
                continue
            self._running[os.pidfd_open(sort.process.pid)] = sort

    @property
    def descriptors(self) -> list[int]:
        """Readable when a sort has ended; then call `sort_ended`."""
        return list(self._running)

    def sort_ended(self, descriptor: int) -> None:
        """Take over the run of a sort process that has ended."""
        sort = self._running.pop(descriptor)
        os.close(descriptor)
        assert sort.process is not None
        sort.partition.sorting -= 1
        try:
            check_sorted(sort.process, self.directory)
            self._take_run(sort)
        except SpillError as error:
            sort.partition.failed = error
        self._start_sorts()
        self._answer()

    def _take_run(self, sort: _Sort) -> None:
        """A run has all the bytes of what was sorted, or it is none."""
        partition, sealed = sort.partition, seal(sort.target)
        size = partition.unsorted[sort.source]
        if sealed.bytes != size:
            raise Corrupt(
                f"of {sort.source} {sealed.bytes} bytes were sorted, {size} were written", sort.source
            )
        self.seals[sort.target] = sealed
        partition.runs.append(sort.target)
        del partition.unsorted[sort.source]
        os.unlink(sort.source)

    def when_sorted(self, number: int, callback: Callable[[list[str] | SpillError], None]) -> None:
        """Call back with the partition's sorted runs (maybe none), or with the reason there are none."""
        partition = self._partitions.get(number)
        if partition is None:
            callback([])
            return
        if partition.failed is not None and not partition.sorting:
            self._sort_again(partition)
        if partition.size:
            self._cut(partition)
        self._waiting.append((number, callback))
        self._answer()

    def _sort_again(self, partition: _Partition) -> None:
        """A sort failed before; its source is still there, so another attempt may try again."""
        partition.failed = None
        for source in partition.unsorted:
            self._queue.append(_Sort(partition, source, f"{source}.run"))
            partition.sorting += 1
        self._start_sorts()

    def _answer(self) -> None:
        for entry in list(self._waiting):
            partition = self._partitions[entry[0]]
            if not partition.sorting:
                self._waiting.remove(entry)
                entry[1](partition.failed if partition.failed is not None else sorted(partition.runs))

    def remove(self) -> None:
        """Stop sorting; the caller removes the directory."""
        self._queue.clear()
        self._waiting.clear()
        for descriptor, sort in self._running.items():
            os.close(descriptor)
            if sort.process is not None:
                sort.process.terminate()
                sort.process.wait()
                if sort.process.stderr is not None:
                    sort.process.stderr.close()
        self._running.clear()
        self._held.clear()
