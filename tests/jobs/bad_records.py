"""Counts words; records may say that they fail, crash, hang, end their task or devour memory."""

import ctypes
import os
import time

from mrjob.job import MRJob


def hang():
    time.sleep(3600)


class Job(MRJob):
    def mapper(self, _, line):
        if line.startswith("raise"):
            raise ValueError(f"cannot take {line}")
        if line.startswith("crash"):
            ctypes.string_at(0)
        if line.startswith("hang"):
            hang()
        if line.startswith("count slowly"):
            for _ in range(8):
                time.sleep(0.2)
                self.increment_counter("slow", "steps")
        if line.startswith("exit"):
            os._exit(0)
        if line.startswith("devour"):
            yield "much", len(bytearray(8 * 1024**3))
        for word in line.split():
            yield word, 1

    def reducer(self, word, counts):
        yield word, sum(counts)


if __name__ == "__main__":
    Job.run()
