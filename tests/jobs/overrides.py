"""Overrides the methods that run substeps and pick protocols."""

from mrjob.job import MRJob
from mrjob.protocol import ReprProtocol


class Job(MRJob):
    def map_pairs(self, pairs, step_num):
        for key, value in super().map_pairs(pairs, step_num):
            yield f"<{key}>", value

    def reduce_pairs(self, pairs, step_num):
        for key, value in super().reduce_pairs(pairs, step_num):
            yield f"[{key}]", value

    def combine_pairs(self, pairs, step_num):
        for key, value in super().combine_pairs(pairs, step_num):
            self.increment_counter("combined", "pairs", 0)
            yield key, value

    def run_mapper(self, step_num=0):
        self.factor = 3
        super().run_mapper(step_num)

    def run_reducer(self, step_num=0):
        self.factor = 5
        super().run_reducer(step_num)

    def pick_protocols(self, step_num, step_type):
        read, write = super().pick_protocols(step_num, step_type)
        if step_type == "reducer":
            protocol = ReprProtocol()
            return read, protocol.write
        return read, write

    def mapper(self, _, line):
        for word in line.split():
            yield word, self.factor

    def combiner(self, word, counts):
        yield word, sum(counts)

    def reducer(self, word, counts):
        yield word, sum(counts) * self.factor


if __name__ == "__main__":
    Job.run()
