"""Imports a module out of an archive given with --py-files."""

from mrjob.job import MRJob


class Job(MRJob):
    def mapper_init(self):
        from packed_module import shout

        self.shout = shout

    def mapper(self, _, line):
        yield self.shout(line[:3]), 1

    def reducer(self, key, values):
        yield key, sum(values)


if __name__ == "__main__":
    Job.run()
