"""Mean response time of each page, from a log of JSON lines of which some are bad.

Shows how to survive bad records and still know about them: they are counted by what is wrong, and
the counters are printed when the job ends. Give --strict to fail on the first one instead; the
error then names its file and offset.

    zmqmr-run examples/json_lines.py examples/data/requests.jsonl
"""

import json
from collections.abc import Iterable, Iterator

from mrjob.job import MRJob

Sum = tuple[float, int]  # milliseconds, requests


class JsonLines(MRJob):
    def configure_args(self) -> None:
        super().configure_args()
        self.add_passthru_arg("--strict", action="store_true", help="fail on a bad record")

    def mapper(self, _: None, line: str) -> Iterator[tuple[str, Sum]]:
        try:
            request = json.loads(line)
            yield request["page"], (float(request["ms"]), 1)
        except (ValueError, KeyError, TypeError) as error:
            if self.options.strict:
                raise
            self.increment_counter("bad records", type(error).__name__)

    def combiner(self, page: str, sums: Iterable[Sum]) -> Iterator[tuple[str, Sum]]:
        yield page, add(sums)

    def reducer(self, page: str, sums: Iterable[Sum]) -> Iterator[tuple[str, float]]:
        milliseconds, requests = add(sums)
        yield page, milliseconds / requests


def add(sums: Iterable[Sum]) -> Sum:
    """The sums of the columns of `sums`."""
    milliseconds, requests = 0.0, 0
    for more_milliseconds, more_requests in sums:
        milliseconds += more_milliseconds
        requests += more_requests
    return milliseconds, requests


if __name__ == "__main__":
    JsonLines.run()
