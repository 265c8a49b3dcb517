"""Makes of each line, a number, a megabyte that can be packed well, in the mapper."""

from mrjob.job import MRJob
from mrjob.protocol import RawValueProtocol


class Job(MRJob):
    OUTPUT_PROTOCOL = RawValueProtocol

    def mapper(self, _, line):
        for number in range(1000):
            yield None, f"{line} {number} ".ljust(1000, "x")


if __name__ == "__main__":
    Job.run()
