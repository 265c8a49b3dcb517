"""The combiner of a map task: in memory, before anything is sent."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from zmqmr.core.plan import runs_as_command
from zmqmr.data.codecs import ROUND_TRIP_TYPES, json_dumps, json_loads, line_writer, writer_kind
from zmqmr.worker.command import pipe_through
from zmqmr.worker.links import Substep
from zmqmr.worker.sinks import Pairs, Sink, Writer
from zmqmr.worker.stock import is_stock

if TYPE_CHECKING:
    from zmqmr.worker.attempt import Attempt


class Combiner:
    """Collects a mapper's records and passes on what the combiner makes of them.

    Records of JSON with a str key and a scalar value wait decoded in a table; others wait encoded.
    """

    def __init__(self, attempt: "Attempt", number: int, sink: Sink, writer: Writer | None):
        self._attempt, self._number, self._sink = attempt, number, sink
        self._limit = attempt.settings.combine_values
        self._room = self._limit
        self._table: dict[str, list[Any]] = {}
        self._lines: list[bytes] = []
        self._as_command = runs_as_command(attempt.spec, attempt.spec.steps[number].combiner)
        self._write = line_writer(writer) if writer is not None else None
        fast = (
            writer is not None
            and writer_kind(writer) == "json"
            and not self._as_command
            and is_stock(attempt.job_class, "combiner")
        )
        self.add_all: Callable[[Pairs], None] = self._add_values if fast else self._add_encoded

    def _add_values(self, pairs: Pairs) -> None:
        table, safe, room = self._table, ROUND_TRIP_TYPES, self._room
        for key, value in pairs:
            if type(key) is str:
                if type(value) not in safe:
                    value = json_loads(json_dumps(value))
                room -= 1 + len(value) // 64 if type(value) is str else 1
                if key in table:
                    table[key].append(value)
                else:
                    table[key] = [value]
                    room -= 4
                if room < 0:
                    self._combine()
                    table, room = self._table, self._room
            else:
                self._room = room
                self._add_encoded([(key, value)])
                table, room = self._table, self._room
        self._room = room

    def _add_encoded(self, pairs: Pairs) -> None:
        write = self._write
        assert write is not None
        self.add_lines(write(key, value) for key, value in pairs)

    def add_lines(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._lines.append(line)
            self._room -= 1 + len(line) // 64
            if self._room < 0:
                self._combine()

    def _combine(self) -> None:
        """Combine what has been collected."""
        self._room = self._limit
        if self._table:
            self._combine_table()
        if self._lines:
            lines, self._lines = self._lines, []
            lines.sort(key=_key_of)
            self._combine_lines(lines)

    def _combine_table(self) -> None:
        substep = self._new_substep()
        step, add_all = substep.step, self._sink.add_all
        combiner, init, final = step["combiner"], step["combiner_init"], step["combiner_final"]
        output = substep.send_output_to(self._sink)
        if init:
            add_all(init() or ())
        table, self._table = self._table, {}
        for key, values in table.items():
            result = combiner(key, iter(values))
            if result is not None:
                add_all(result or ())
        if final:
            add_all(final() or ())
        output.end()

    def _new_substep(self) -> Substep:
        """A fresh instance of the job for each run: a combiner may keep what it has seen."""
        return Substep(self._attempt, self._number, "combiner")

    def _combine_lines(self, lines: list[bytes]) -> None:
        lines.append(b"")
        block = b"\n".join(lines)
        if self._as_command:
            pipe_through(self._attempt, (self._number, "combiner"), iter([block]), self._sink)
        else:
            self._new_substep().run_stock(iter([block]), self._sink)

    def finish(self) -> None:
        self._combine()


def _key_of(line: bytes) -> bytes:
    return line.partition(b"\t")[0]
