"""Writes no record at all."""

from mrjob.job import MRJob


class Job(MRJob):
    def mapper(self, _, line):
        self.increment_counter("lines", "seen")
        return ()

    def reducer(self, key, values):
        raise AssertionError("there is nothing to reduce")


if __name__ == "__main__":
    Job.run()
