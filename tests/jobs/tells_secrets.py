"""Yields what a task sees without reading files of keys: environments and command lines of processes."""

import os
from pathlib import Path

from mrjob.job import MRJob


class Job(MRJob):
    def mapper(self, _, line):
        yield "own", dict(os.environ)

    def reducer(self, key, values):
        for value in values:
            yield key, value
        for folder in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    yield str(folder / name), (folder / name).read_bytes().decode("latin-1")
                except OSError:
                    continue


if __name__ == "__main__":
    Job.run()
