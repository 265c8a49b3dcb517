"""Reads lines with the protocol that jobs have by default."""

from mrjob.job import MRJob


class Job(MRJob):
    def mapper(self, _, line):
        yield line, len(line)

    def reducer(self, line, lengths):
        yield line, list(lengths)


if __name__ == "__main__":
    Job.run()
