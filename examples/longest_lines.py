"""The longest lines of the input, and where they are.

Shows top-N without sorting everything: a mapper keeps its own N best and passes them on when its
input ends (mapper_final). Also shows counters, and set_status, which appears beside the progress of a
running job.

    zmqmr-run examples/longest_lines.py --top 5 $(python examples/stdlib_files.py)
"""

import heapq
from collections.abc import Iterable, Iterator

from mrjob.compat import jobconf_from_env
from mrjob.job import MRJob

Entry = tuple[int, str, str]  # characters, file, line
STATUS_LINES = 100_000  # between two status messages


class LongestLines(MRJob):
    def configure_args(self) -> None:
        super().configure_args()
        self.add_passthru_arg("--top", type=int, default=10, help="how many lines (default 10)")

    def mapper_init(self) -> None:
        self.best: list[Entry] = []
        self.lines = 0
        self.blank = 0

    def mapper(self, _: None, line: str) -> None:
        self.lines += 1
        if not line.strip():
            self.blank += 1
        if self.lines % STATUS_LINES == 0:
            self.set_status(f"{self.lines} lines read")
        entry = (len(line), jobconf_from_env("mapreduce.map.input.file"), line)
        if len(self.best) < self.options.top:
            heapq.heappush(self.best, entry)
        else:
            heapq.heappushpop(self.best, entry)

    def mapper_final(self) -> Iterator[tuple[None, Entry]]:
        # Once for each task and not once for each line: a counter is a message.
        self.increment_counter("lines", "read", self.lines)
        self.increment_counter("lines", "blank", self.blank)
        for entry in self.best:
            yield None, entry

    def reducer(self, _: None, entries: Iterable[Entry]) -> Iterator[tuple[int, tuple[str, str]]]:
        # Entries come as lists; they compare as the tuples did.
        for length, path, line in heapq.nlargest(self.options.top, entries):
            yield length, (path, line)


if __name__ == "__main__":
    LongestLines.run()
