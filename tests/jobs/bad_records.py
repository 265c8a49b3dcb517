"""Counts words; records may say that they fail, crash or devour memory."""

import ctypes

from mrjob.job import MRJob


class Job(MRJob):
    def mapper(self, _, line):
        if line.startswith("raise"):
            raise ValueError(f"cannot take {line}")
        if line.startswith("crash"):
            ctypes.string_at(0)
        if line.startswith("devour"):
            yield "much", len(bytearray(8 * 1024**3))
        for word in line.split():
            yield word, 1

    def reducer(self, word, counts):
        yield word, sum(counts)


if __name__ == "__main__":
    Job.run()
