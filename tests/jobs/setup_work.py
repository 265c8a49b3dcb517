"""Uses what --setup made: a module on PYTHONPATH and a file in the working directory."""

import os

from mrjob.job import MRJob


class Job(MRJob):
    def mapper_init(self):
        from made_for_setup import shout

        self.shout = shout
        with open("made.txt") as file:
            self.made = file.read().strip()

    def mapper(self, _, line):
        yield self.shout(line[:3]), [self.made, os.environ.get("FROM_SETUP")]

    def reducer(self, key, values):
        yield key, sorted(values)


if __name__ == "__main__":
    Job.run()
