"""A step with a reducer alone, on lines that hold a key and a value."""

from mrjob.job import MRJob
from mrjob.protocol import JSONProtocol


class Job(MRJob):
    INPUT_PROTOCOL = JSONProtocol

    def reducer(self, key, values):
        values = sorted(values)
        yield key, [len(values), values[0], values[-1]]


if __name__ == "__main__":
    Job.run()
