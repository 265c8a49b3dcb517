"""The partitions an agent owns: the committed records of each attempt, once, sorted into runs.

Records come in two ways. Those of attempts on this host are in spools, and are read from there when they are
sorted. Those of other hosts come as frames, which are kept apart until their attempt commits: in memory up to
`Settings.hold_bytes`, beyond that in files; then they are appended to their partition's file. So an agent's
memory does not grow with the data.
"""

import os
import subprocess
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

import msgspec

from zmqmr.data.seals import damaged, seal
from zmqmr.data.sort import check_sorted, start_sort
from zmqmr.data.spools import Spool
from zmqmr.errors import Corrupt, OutOfDisk, SpillError, is_full
from zmqmr.messages import FrameCount, Seal
from zmqmr.net.frames import FrameHeader

_BLOCK_BYTES = 256 * 1024


def spill_error(error: OSError, path: str) -> SpillError:
    """What a failed write to a spill directory means."""
    if is_full(error):
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


class _File:
    """Committed records that came from other hosts, of one partition."""

    def __init__(self, path: str):
        self.path = path
        self.bytes = 0
        self._sections: list[tuple[int, int]] = []  # bytes and CRC-32 of each task's records, in order

    def append(self, payloads: Sequence[bytes], size: int, crc32: int) -> None:
        """Payloads of that size and checksum, all or nothing; SpillError when they cannot be written."""
        try:
            with open(self.path, "ab", buffering=0) as file:
                try:
                    for payload in payloads:
                        view = memoryview(payload)
                        while view:
                            view = view[file.write(view) or 0 :]
                except OSError:
                    file.truncate(self.bytes)
                    raise
        except OSError as error:
            raise spill_error(error, self.path) from error
        self.bytes += size
        self._sections.append((size, crc32))

    def blocks(self) -> Iterator[bytes]:
        try:
            with open(self.path, "rb", buffering=0) as file:
                for size, crc32 in self._sections:
                    found = 0
                    while size and (block := file.read(min(size, _BLOCK_BYTES))):
                        found = zlib.crc32(block, found)
                        size -= len(block)
                        yield block
                    if size or found != crc32:
                        raise damaged(self.path)
                if file.read(1):
                    raise damaged(self.path)
        except OSError as error:
            raise Corrupt(f"cannot read {self.path}: {error.strerror}", self.path) from error

    def forget(self) -> None:
        with suppress(OSError):
            os.unlink(self.path)


class _InSpool:
    """Committed records of an attempt of this host, of one partition."""

    def __init__(self, spool: Spool, partition: int):
        self.path = spool.path
        self.bytes = spool.parts[partition].bytes
        self._spool, self._partition = spool, partition

    def blocks(self) -> Iterator[bytes]:
        return self._spool.blocks(self._partition)

    def forget(self) -> None:
        """Nothing: the spool serves other partitions, and those who lose theirs."""


_Source = _File | _InSpool


@dataclass(slots=True)
class _Partition:
    """Committed records of one partition: those to be sorted, and sorted runs."""

    path: str
    growing: list[_Source] = field(default_factory=list)
    size: int = 0  # bytes in them
    volume: int = 0  # bytes of all that has joined
    file: _File | None = None  # the one of them that takes what comes from other hosts
    joined: dict[str, int] = field(default_factory=dict)  # task -> CRC-32 of its records here
    runs: list[str] = field(default_factory=list)
    cuts: int = 0  # runs begun so far
    unsorted: dict[int, list[_Source]] = field(default_factory=dict)  # what is no run yet, by cut
    sorting: int = 0
    failed: SpillError | None = None
    forgotten: bool = False  # what its sorts make is of no use


class _Feed(threading.Thread):
    """Writes sources to a sort, beside the agent's loop, and checks them on the way."""

    def __init__(self, sources: Sequence[_Source], pipe: IO[bytes]):
        super().__init__(daemon=True)
        self._sources, self._pipe = sources, pipe
        self.error: SpillError | None = None
        self.start()

    def run(self) -> None:
        try:
            for source in self._sources:
                for block in source.blocks():
                    view = memoryview(block)
                    while view:
                        view = view[self._pipe.write(view) or 0 :]
        except SpillError as error:
            self.error = error
        except OSError:
            pass  # the sort has ended; it says why
        finally:
            self._pipe.close()


@dataclass(slots=True)
class _Sort:
    partition: _Partition
    cut: int
    target: str
    directory: str
    process: "subprocess.Popen[bytes] | None" = None
    feed: _Feed | None = None

    @property
    def growing(self) -> str:
        """Where sort writes, until it has ended well."""
        return f"{self.target}.new"


class Partitions:
    """The partitions of one stage's shuffle that this worker owns."""

    def __init__(
        self,
        directories: Sequence[str],
        sort: Sequence[str],
        sort_memory: str,
        run_bytes: int,
        hold_bytes: int,
        sorters: int,
    ):
        """`directories`: one for each drive, made here and removed by the caller; partitions go round them,
        and what does not fit on one goes to the next. `sorters`: sort processes at a time."""
        self.directories = tuple(directories)
        self._sort, self._sort_memory = sort, sort_memory
        self._run_bytes, self._hold_bytes, self._sorters = run_bytes, hold_bytes, sorters
        self._held: dict[tuple[str, int], _Held] = {}
        self._over: set[tuple[str, int]] = set()  # attempts whose frames nobody wants any more
        self._memory = 0
        self._partitions: dict[int, _Partition] = {}
        self.seals: dict[str, Seal] = {}  # of the runs
        self._queue: deque[_Sort] = deque()
        self._running: dict[int, _Sort] = {}  # by pidfd
        self._waiting: list[tuple[int, Callable[[list[str] | SpillError], None]]] = []
        self._made = 0  # partitions, those too that were made again
        self._retries = 0  # of sorts that failed
        for directory in self.directories:
            os.makedirs(directory, exist_ok=True)

    # --- frames ------------------------------------------------------------------------------

    def receive(self, header: FrameHeader, payload: bytes) -> None:
        """Hold a frame until its attempt commits. SpillError when it cannot be kept."""
        if (header.task, header.attempt) in self._over:
            return
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
            path = os.path.join(self._directory(header.attempt), f"{header.task}-{header.attempt}.held")
            held = self._held[header.task, header.attempt] = _Held(path)
        return held

    def _directory(self, number: int) -> str:
        return self.directories[number % len(self.directories)]

    def holds(self, task: str, attempt: int, counts: Sequence[FrameCount]) -> bool:
        """Whether all frames the attempt sent here have arrived."""
        if not any(count.frames for count in counts):
            return True
        held = self._held.get((task, attempt))
        return held is not None and (held.refused is not None or held.complete(counts))

    # --- commits -----------------------------------------------------------------------------

    def commit(
        self, task: str, attempt: int, counts: Sequence[FrameCount], spool: Spool | None = None
    ) -> None:
        """The attempt's records join their partitions, from its spool or its frames, each task's once:
        where they are already, from another attempt, nothing happens. SpillError when they cannot be
        written, or are others than those."""
        held = self._held.get((task, attempt))
        if held is not None and held.refused is not None:
            raise held.refused
        new = [count for count in counts if not self._is_joined(task, count)]
        for count in new:
            self._check(task, count, held, spool)
        for count in new:
            partition = self._partition(count.partition)
            if spool is not None:
                partition.growing.append(_InSpool(spool, count.partition))
            elif held is not None:
                self._join_frames(count, partition, held)
            self._joined(task, count, partition)
        self.discard(task, attempt)

    def _is_joined(self, task: str, count: FrameCount) -> bool:
        known = self._partitions.get(count.partition)
        if known is None or task not in known.joined:
            return False
        if known.joined[task] != count.crc32:
            raise SpillError(f"{task} yielded other records than its attempt before did")
        return True

    def _check(self, task: str, count: FrameCount, held: _Held | None, spool: Spool | None) -> None:
        """That what came is what was yielded."""
        if spool is not None:
            part = spool.parts.get(count.partition)
            if part is None or (part.bytes, part.crc32) != (count.bytes, count.crc32):
                raise damaged(spool.path)
        else:
            came = held.bytes.get(count.partition, 0) if held is not None else 0
            if came != count.bytes:
                raise SpillError(
                    f"{task} sent {count.bytes} bytes to partition {count.partition}, {came} came"
                )

    def _join_frames(self, count: FrameCount, partition: _Partition, held: _Held) -> None:
        file = partition.file
        if file is None:
            file = _File(f"{partition.path}.{partition.cuts}")
        payloads = self._payloads(held, count.partition)
        crc32 = 0
        for payload in payloads:
            crc32 = zlib.crc32(payload, crc32)
        if (sum(map(len, payloads)), crc32) != (count.bytes, count.crc32):
            raise damaged(held.path)  # what waited in a file is not what came
        file.append(payloads, count.bytes, count.crc32)
        if partition.file is None:
            partition.file = file
            partition.growing.append(file)

    def _joined(self, task: str, count: FrameCount, partition: _Partition) -> None:
        partition.joined[task] = count.crc32
        partition.size += count.bytes
        partition.volume += count.bytes
        if partition.size >= self._run_bytes:
            self._cut(partition)

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
        """Forget an attempt's frames, those that are still to come too."""
        self._over.add((task, attempt))
        held = self._held.pop((task, attempt), None)
        if held is not None:
            self._memory -= held.memory
            if held.file_bytes:
                with suppress(OSError):
                    os.unlink(held.path)

    def reset(self, number: int) -> None:
        """Forget a partition's records: they are damaged, and come again."""
        partition = self._partitions.pop(number, None)
        if partition is None:
            return
        partition.forgotten = True
        self._queue = deque(sort for sort in self._queue if sort.partition is not partition)
        for sort in self._running.values():
            if sort.partition is partition and sort.process is not None:
                sort.process.terminate()  # it removes its temporary files
        for run in partition.runs:
            self.seals.pop(run, None)
            with suppress(OSError):
                os.unlink(run)
        for sources in (partition.growing, *partition.unsorted.values()):
            for source in sources:
                source.forget()

    # --- runs --------------------------------------------------------------------------------

    def _partition(self, number: int) -> _Partition:
        partition = self._partitions.get(number)
        if partition is None:
            self._made += 1  # one that is made again has files of its own
            path = os.path.join(self._directory(number), f"partition-{number}.{self._made}")
            partition = self._partitions[number] = _Partition(path)
        return partition

    def _cut(self, partition: _Partition) -> None:
        """Hand what has grown to sort and begin anew."""
        partition.unsorted[partition.cuts] = partition.growing
        self._enqueue(partition, partition.cuts, os.path.dirname(partition.path))
        partition.growing, partition.file, partition.size = [], None, 0
        partition.cuts += 1
        self._start_sorts()

    def _enqueue(self, partition: _Partition, cut: int, directory: str) -> None:
        name = f"{os.path.basename(partition.path)}.{cut}.run"
        self._queue.append(_Sort(partition, cut, os.path.join(directory, name), directory))
        partition.sorting += 1

    def _start_sorts(self) -> None:
        while self._queue and len(self._running) < self._sorters:
            sort = self._queue.popleft()
            try:
                sort.process = start_sort(self._sort, self._sort_memory, sort.directory, sort.growing)
            except OSError as error:
                sort.partition.sorting -= 1
                sort.partition.failed = SpillError(
                    f"cannot start {self._sort[0]}: {error.strerror}", sort.target
                )
                continue
            assert sort.process.stdin is not None
            sort.feed = _Feed(sort.partition.unsorted[sort.cut], sort.process.stdin)
            self._running[os.pidfd_open(sort.process.pid)] = sort

    @property
    def descriptors(self) -> list[int]:
        """Readable when a sort has ended; then call `sort_ended`."""
        return list(self._running)

    def sort_ended(self, descriptor: int) -> None:
        """Take over the run of a sort process that has ended."""
        sort = self._running.pop(descriptor)
        os.close(descriptor)
        assert sort.process is not None and sort.feed is not None
        sort.partition.sorting -= 1
        sort.feed.join()
        try:
            check_sorted(sort.process, sort.directory)
            if sort.feed.error is not None:
                raise sort.feed.error
            if not sort.partition.forgotten:
                self._take_run(sort)
        except (SpillError, OSError) as error:
            failed = spill_error(error, sort.target) if isinstance(error, OSError) else error
            sort.partition.failed = sort.feed.error or failed
        with suppress(OSError):
            os.unlink(sort.growing)  # what is no run by now is of no use
        self._start_sorts()
        self._answer()

    def _take_run(self, sort: _Sort) -> None:
        """A run has all the bytes of what was sorted, or it is none."""
        partition, sealed = sort.partition, seal(sort.growing)
        size = sum(source.bytes for source in partition.unsorted[sort.cut])
        if sealed.bytes != size:
            raise Corrupt(f"{sort.target} has {sealed.bytes} bytes, {size} were to be sorted", sort.target)
        os.replace(sort.growing, sort.target)
        self.seals[sort.target] = msgspec.structs.replace(sealed, path=sort.target)
        partition.runs.append(sort.target)
        for source in partition.unsorted.pop(sort.cut):
            source.forget()

    def volume(self, number: int) -> int:
        """The bytes that a partition holds."""
        partition = self._partitions.get(number)
        return partition.volume if partition is not None else 0

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
        """A sort failed before; what it read is still there, so another attempt may try again, on the next
        drive."""
        partition.failed = None
        self._retries += 1
        for cut in partition.unsorted:
            self._enqueue(partition, cut, self._directory(self._retries))
        self._start_sorts()

    def _answer(self) -> None:
        for entry in list(self._waiting):
            partition = self._partitions.get(entry[0])
            if partition is None:
                self._waiting.remove(entry)
                entry[1](SpillError(f"partition {entry[0]} is being made again"))
            elif not partition.sorting:
                self._waiting.remove(entry)
                entry[1](partition.failed if partition.failed is not None else sorted(partition.runs))

    def remove(self) -> None:
        """Stop sorting; the caller removes the directories."""
        self._queue.clear()
        self._waiting.clear()
        for descriptor, sort in self._running.items():
            os.close(descriptor)
            if sort.process is not None:
                sort.process.terminate()
                sort.process.wait()
                if sort.process.stderr is not None:
                    sort.process.stderr.close()
            if sort.feed is not None:
                sort.feed.join()
        self._running.clear()
        self._held.clear()
