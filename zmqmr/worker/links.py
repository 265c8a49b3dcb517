"""The chain of an attempt: mappers and reducers of the job, each feeding the next, the last feeding a sink.

Records are pushed: a link's `add_all` takes pairs and passes on what the job makes of them. Between two
links a pair is encoded and decoded, as it would be between two steps of mrjob. A job that overrides one of
mrjob's own methods for running a substep gets that method, with files for its input and output.
"""

import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from mrjob.step import MRStep

from zmqmr.core.counters import count_said
from zmqmr.core.plan import plan_stages
from zmqmr.data.codecs import block_decoder, line_writer, loads_for
from zmqmr.messages import Counters
from zmqmr.worker.sinks import Pairs, Writer, lines_of, unmark_block
from zmqmr.worker.stock import Kind, is_marked, is_stock

if TYPE_CHECKING:
    from zmqmr.worker.attempt import Attempt
    from zmqmr.worker.output import Output

_COUNTER = re.compile(rb"reporter:counter:([^,]*),([^,]*),(-?\d+)\n?$")
_STATUS = re.compile(rb"reporter:status:(.*)\n?$")
_MEMO_SIZE = 10_000  # decoded values remembered
_MEMO_TYPES = frozenset({str, int, float, bool, type(None)})


class Target(Protocol):
    """What takes the records of a link: a sink, a combiner, or the next link."""

    def add_all(self, pairs: Pairs) -> None: ...

    def add_lines(self, lines: Iterable[bytes]) -> None: ...


class _Reports(io.RawIOBase):
    """The job's `stderr`: counters and statuses are taken, the rest goes to standard error."""

    def __init__(self, attempt: "Attempt", counters: Counters):
        self._attempt = attempt
        self._counters = counters
        self._most = attempt.settings.max_counters

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        data = bytes(data)
        for line in data.splitlines(keepends=True):
            if counter := _COUNTER.match(line):
                count_said(self._counters, counter[1], counter[2], int(counter[3]), self._most)
                self._attempt.reports += 1
            elif status := _STATUS.match(line):
                self._attempt.set_status(status[1].decode("utf-8", "replace"))
            else:
                sys.stderr.buffer.write(line)
        return len(data)


class _BlockInput(io.RawIOBase):
    """Blocks as a file: the `stdin` of a job that reads it itself."""

    def __init__(self, blocks: Iterator[bytes]):
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class _LineOutput(io.RawIOBase):
    """The job's `stdout`: what it writes there becomes records."""

    def __init__(self, target: Target):
        self._target = target
        self._rest = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = len(data)
        lines = (self._rest + bytes(data)).split(b"\n")
        self._rest = lines.pop()
        if lines:
            self._target.add_lines(lines)
        return size

    def end(self) -> None:
        if self._rest:
            self._target.add_lines([self._rest])
            self._rest = b""


class Substep:
    """One mapper, combiner or reducer of the job: an instance made as its task would make it."""

    def __init__(
        self,
        attempt: "Attempt",
        number: int,
        kind: Kind,
        extra: tuple[str, ...] = (),
    ):
        self.attempt, self.number, self.kind = attempt, number, kind
        spec = attempt.spec
        sys.argv = [spec.script, f"--step-num={number}", f"--{kind}", *spec.task_args, *extra]
        self.job = attempt.job_class()
        self.job._stderr = io.BufferedWriter(_Reports(attempt, attempt.counters.setdefault(str(number), {})))
        self.stock = is_stock(type(self.job), kind)

    @property
    def step(self) -> Any:
        return self.job._get_step(self.number, MRStep)

    @cached_property
    def protocols(self) -> tuple[Callable[[bytes], Any], Writer]:
        """The read and write functions that mrjob picks for the substep."""
        read, write = self.job.pick_protocols(self.number, self.kind)
        return read, write

    @property
    def read(self) -> Callable[[bytes], Any]:
        return self.protocols[0]

    @property
    def write(self) -> Writer:
        return self.protocols[1]

    def send_output_to(self, target: Target) -> _LineOutput:
        """What the job writes to its `stdout` goes to `target`."""
        output = _LineOutput(target)
        self.job._stdout = output
        return output

    def run_stock(self, lines: Iterator[bytes], target: Target) -> None:
        """Run the substep with the job's own method; `lines` are blocks of whole lines."""
        output = self.send_output_to(target)
        self.job._stdin = io.BufferedReader(_BlockInput(lines))
        getattr(self.job, f"run_{self.kind}")(self.number)
        output.end()


# --- links -----------------------------------------------------------------------------------


class Mapper:
    """A mapper with its init and final."""

    def __init__(self, substep: Substep, target: Target):
        self._target = target
        step = substep.step
        self._map, self._init, self._final = step["mapper"], step["mapper_init"], step["mapper_final"]
        self._output = substep.send_output_to(target)

    def start(self) -> None:
        if self._init:
            self._target.add_all(self._init() or ())

    def add_all(self, pairs: Pairs) -> None:
        mapper, add_all = self._map, self._target.add_all
        for key, value in pairs:
            result = mapper(key, value)
            if result is not None:
                add_all(result or ())

    def finish(self) -> None:
        if self._final:
            self._target.add_all(self._final() or ())
        self._output.end()


class _Between:
    """From one link's output to the next one's input, by way of the encoded line."""

    def __init__(self, write: Writer, read: Callable[[bytes], Any], target: Target):
        self._write, self._decode, self._target = line_writer(write), block_decoder(read), target

    def add_all(self, pairs: Pairs) -> None:
        write = self._write
        self.add_lines(write(key, value) for key, value in pairs)

    def add_lines(self, lines: Iterable[bytes]) -> None:
        decode, add_all = self._decode, self._target.add_all
        for line in lines:
            add_all(decode(line + b"\n").pairs)


class _Spooled:
    """A later link that must read its input itself: it is collected in a file first."""

    def __init__(self, substep: Substep, write: Writer, target: Target):
        self._substep, self._write, self._target = substep, line_writer(write), target
        self._path = os.path.join(substep.attempt.directory, f"link-{substep.number}-{substep.kind}")
        self._file = open(self._path, "wb")  # noqa: SIM115  closed in finish

    def start(self) -> None:
        pass

    def add_all(self, pairs: Pairs) -> None:
        write = self._write
        self.add_lines(write(key, value) for key, value in pairs)

    def add_lines(self, lines: Iterable[bytes]) -> None:
        self._file.writelines(line + b"\n" for line in lines)

    def finish(self) -> None:
        self._file.close()
        with open(self._path, "rb") as file:
            self._substep.run_stock(iter(lambda: file.read(io.DEFAULT_BUFFER_SIZE), b""), self._target)


def run_links(attempt: "Attempt", output: "Output") -> None:
    """Run a chain of Python substeps over the attempt's input."""
    links = attempt.launch.links
    if links[0][1] == "mapper" and attempt.spec.input_mode == "files" and attempt.launch.split:
        for path, uri in attempt.raw_files():
            substeps = [
                Substep(attempt, *link, (path, uri) if n == 0 else ()) for n, link in enumerate(links)
            ]
            _run_chain(substeps, output, _run_raw)
        return
    substeps = [Substep(attempt, number, kind) for number, kind in links]
    run = _run_reducer if substeps[0].kind == "reducer" else _run_mapper
    _run_chain(substeps, output, run)


def _run_chain(substeps: list[Substep], output: "Output", run: Callable[[Substep, Target], None]) -> None:
    """Put the links after the first between it and the output, run the first, finish the others in turn."""
    target, later = _chain(substeps, output.target(substeps[-1].write, substeps[-1].job))
    for link in reversed(later):
        link.start()
    run(substeps[0], target)
    for link in later:
        link.finish()


def _chain(substeps: list[Substep], sink: Target) -> tuple[Target, list[Any]]:
    """Where the first substep's output goes, and the links after it, in order."""
    target: Target = sink
    links: list[Any] = []
    for before, substep in reversed(list(itertools.pairwise(substeps))):
        if substep.stock:
            link: Any = Mapper(substep, target)
            target = _Between(before.write, substep.read, link)
        else:
            link = target = _Spooled(substep, before.write, target)
        links.insert(0, link)
    return target, links


def _run_mapper(substep: Substep, target: Target) -> None:
    attempt = substep.attempt
    if not substep.stock:
        substep.run_stock(attempt.map_blocks(), target)
        return
    decode = block_decoder(substep.read)
    mapper = Mapper(substep, target)
    mapper.start()
    if attempt.launch.careful or attempt.launch.skip:
        for record in attempt.careful_records():
            mapper.add_all(decode(record + b"\n").pairs)
    else:
        for block in attempt.map_blocks():
            pairs, lines = decode(block)
            attempt.position.follow(lines)
            mapper.add_all(pairs)
    mapper.finish()


def _run_raw(substep: Substep, target: Target) -> None:
    """mapper_raw: the instance has the file's path among its arguments."""
    if not substep.stock:
        substep.run_stock(iter(()), target)
        return
    output = substep.send_output_to(target)
    target.add_all(substep.job.map_pairs((), substep.number))
    output.end()


# --- reducing --------------------------------------------------------------------------------


def _run_reducer(substep: Substep, target: Target) -> None:
    attempt = substep.attempt
    marked = attempt.marked_input = _is_marked(attempt, substep)
    loads = loads_for(substep.read)
    if substep.stock and loads is not None and not marked:
        Reducer(substep, loads, target).run(attempt)
    else:
        substep.run_stock(_records(attempt, marked), target)


def reduce_records(attempt: "Attempt") -> Iterator[bytes]:
    """A reduce task's input as it was before the shuffle, in blocks of whole lines."""
    return _records(attempt, _is_marked(attempt, None))


def _is_marked(attempt: "Attempt", substep: Substep | None) -> bool:
    """Whether the records of the reduce task's partition are marked."""
    spec, source = attempt.spec, attempt.launch.source
    assert source is not None
    stage = plan_stages(spec)[source]
    if substep is None and attempt.job_class is not None and stage.links:
        substep = Substep(attempt, *stage.links[-1])
    return is_marked(spec, attempt.job_class, stage, substep.job if substep is not None else None)


def _records(attempt: "Attempt", marked: bool) -> Iterator[bytes]:
    blocks = attempt.reduce_blocks()
    return map(unmark_block, blocks) if marked else blocks


class Reducer:
    """A reducer over sorted records: groups by the key's bytes, decodes a key once.

    Neighbouring keys with different bytes that decode to equal keys (1 and 1.0) are one group, as in mrjob.
    """

    def __init__(self, substep: Substep, loads: Callable[[bytes], Any], target: Target):
        step = substep.step
        self._reduce, self._init, self._final = step["reducer"], step["reducer_init"], step["reducer_final"]
        self._loads = loads
        self._target = target
        self._output = substep.send_output_to(target)
        self._memo: dict[bytes, Any] = {}

    def run(self, attempt: "Attempt") -> None:
        if self._init:
            self._target.add_all(self._init() or ())
        lines = self._lines(attempt)
        self._next: tuple[bytes, Any, bytes] | None = (
            None  # raw key, key, raw value of the next group's first record
        )
        self._read_first(lines)
        while self._next is not None:
            _, key, _ = self._next
            values = self._values(lines)
            result = self._reduce(key, values)
            if result is not None:
                self._target.add_all(result or ())
            for _ in values:
                pass  # the reducer left some: go on to the next key
        if self._final:
            self._target.add_all(self._final() or ())
        self._output.end()

    def _lines(self, attempt: "Attempt") -> Iterator[bytes]:
        for block in attempt.reduce_blocks():
            lines = iter(lines_of(block))
            attempt.position.follow(lines)
            yield from lines

    def _read_first(self, lines: Iterator[bytes]) -> None:
        line = next(lines, None)
        if line is not None:
            raw_key, _, raw_value = line.partition(b"\t")
            self._next = (raw_key, self._loads(raw_key), raw_value)

    def _values(self, lines: Iterator[bytes]) -> Iterator[Any]:
        """The values of the group that `_next` begins; leaves the following group's first record there."""
        assert self._next is not None
        raw_key, key, raw_value = self._next
        self._next = None
        decode, memo = self._decode, self._memo
        yield memo[raw_value] if raw_value in memo else decode(raw_value)
        prefix = raw_key + b"\t"
        size = len(prefix)
        for line in lines:
            if line.startswith(prefix):
                raw_value = line[size:]
            else:
                raw_key, _, raw_value = line.partition(b"\t")
                other = self._loads(raw_key)
                if not (other is key or other == key):
                    self._next = (raw_key, other, raw_value)
                    return
                prefix = raw_key + b"\t"
                size = len(prefix)
            yield memo[raw_value] if raw_value in memo else decode(raw_value)

    def _decode(self, raw: bytes) -> Any:
        value = self._loads(raw)
        if len(raw) <= 32 and len(self._memo) < _MEMO_SIZE and type(value) in _MEMO_TYPES:
            self._memo[raw] = value
        return value
