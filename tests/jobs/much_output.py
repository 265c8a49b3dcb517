"""Makes 250 KB that cannot be packed out of each line, in the mapper (--shuffle) or in the reducer."""

import os

from mrjob.job import MRJob


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--shuffle", action="store_true")

    def blocks(self):
        for _ in range(250):
            yield os.urandom(500).hex()

    def mapper(self, _, line):
        for block in self.blocks() if self.options.shuffle else ["one"]:
            yield block, 1

    def reducer(self, key, values):
        for _ in values:
            if self.options.shuffle:
                yield "small", 1
            else:
                for block in self.blocks():
                    yield block, 1


if __name__ == "__main__":
    Job.run()
