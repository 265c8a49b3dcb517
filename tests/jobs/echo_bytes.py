"""Hands every line through as it is, and counts equal lines."""

from mrjob.job import MRJob
from mrjob.protocol import BytesValueProtocol, PickleProtocol, ReprProtocol


class Job(MRJob):
    INPUT_PROTOCOL = BytesValueProtocol
    INTERNAL_PROTOCOL = PickleProtocol
    OUTPUT_PROTOCOL = ReprProtocol

    def mapper(self, _, line):
        yield line, 1

    def reducer(self, line, ones):
        yield line, sum(ones)


if __name__ == "__main__":
    Job.run()
