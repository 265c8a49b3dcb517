"""A step with a mapper alone."""

from mrjob.job import MRJob


class Job(MRJob):
    def mapper(self, _, line):
        yield len(line), line.upper()


if __name__ == "__main__":
    Job.run()
