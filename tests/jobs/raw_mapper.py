"""mapper_raw reads a whole file by its path."""

import os
import zlib

from mrjob.job import MRJob


class Job(MRJob):
    def mapper_raw(self, input_path, input_uri):
        with open(input_path, "rb") as file:
            data = file.read()
        self.increment_counter("files", "read")
        yield os.path.basename(input_uri), [len(data), zlib.crc32(data), data.count(b"\n")]

    def reducer(self, name, facts):
        yield name, sorted(facts)


if __name__ == "__main__":
    Job.run()
