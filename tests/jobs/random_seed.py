"""Seeds the random numbers when it is imported."""

import random

from mrjob.job import MRJob

random.seed(42)


class Job(MRJob):
    def mapper(self, _, line):
        yield line[:10], random.random()


if __name__ == "__main__":
    Job.run()
