"""A machine of a test's own, as far as jobs and the commands about them are concerned."""

import json
import sys
from pathlib import Path
from typing import Any

from differential.harness import plain_environ, run

JOB = """\
import sys
from mrjob.job import MRJob

class Words(MRJob):
    def mapper(self, _, line):
        if line == 'bad':
            print('about to fail', file=sys.stderr)
            raise ValueError('a bad line')
        self.increment_counter('seen', 'lines')
        yield line, 1

    def reducer(self, line, ones):
        yield line, sum(ones)

if __name__ == '__main__':
    Words.run()
"""


class Site:
    """A machine's memory of its own, and the commands that look at it."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "job.py").write_text(JOB)
        (folder / "tmp").mkdir()
        self.environ = plain_environ({"XDG_STATE_HOME": f"{folder}/state", "TMPDIR": f"{folder}/tmp"})

    def run(self, *args: str, stdin: bytes = b"") -> Any:
        command = [sys.executable, "-m", "zmqmr.cli.run", *args]
        return run(command, self.environ, stdin, cwd=self.folder)

    def zmqmr(self, *args: str) -> Any:
        return run([sys.executable, "-m", "zmqmr", *args], self.environ, cwd=self.folder)

    def json(self, *args: str) -> list[dict[str, Any]]:
        ended = self.zmqmr(*args, "--json")
        return [json.loads(line) for line in ended.stdout.splitlines()]
