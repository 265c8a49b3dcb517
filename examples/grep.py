r"""Print the lines that match a pattern, with their file.

Shows a job without a reducer: nothing is sorted, the mappers write the output. It also shows a
switch of the job's own, and output that is plain text instead of JSON.

    zmqmr-run examples/grep.py --pattern 'def \w+_exit\b' $(python examples/stdlib_files.py)
"""

import re
from collections.abc import Iterator

from mrjob.compat import jobconf_from_env
from mrjob.job import MRJob
from mrjob.protocol import RawValueProtocol


class Grep(MRJob):
    OUTPUT_PROTOCOL = RawValueProtocol

    def configure_args(self) -> None:
        super().configure_args()
        self.add_passthru_arg("--pattern", required=True, help="a Python regular expression")

    def mapper_init(self) -> None:
        self.pattern = re.compile(self.options.pattern)

    def mapper(self, _: None, line: str) -> Iterator[tuple[None, str]]:
        if self.pattern.search(line):
            yield None, f"{jobconf_from_env('mapreduce.map.input.file')}:{line}"


if __name__ == "__main__":
    Grep.run()
