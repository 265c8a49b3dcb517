"""Counters from every substep, raw reporter lines and statuses."""

from mrjob.job import MRJob
from mrjob.step import MRStep


class Job(MRJob):
    def mapper(self, _, line):
        self.increment_counter("mapper", "lines")
        self.increment_counter("odd, name", "with, commas", 2)
        self.increment_counter("zero", "nothing", 0)
        self.stderr.write(b"reporter:counter:raw,from mapper,3\n")
        self.stderr.flush()
        self.set_status(f"at {line[:5]}")
        for word in line.split():
            yield word, 1

    def total(self, word, counts):
        self.increment_counter("reducer", "words")
        counts = sum(counts)
        self.increment_counter("reducer", "values", counts)
        self.stderr.write("reporter:counter:gr\u00fc\u00df,dich,1\n".encode())
        yield word, counts

    def initial(self, word, count):
        self.increment_counter("mapper", "lines")
        yield word[:1], count

    def most(self, initial, counts):
        yield initial, max(counts)

    def steps(self):
        return [
            MRStep(mapper=self.mapper, reducer=self.total),
            MRStep(mapper=self.initial, reducer=self.most),
        ]


if __name__ == "__main__":
    Job.run()
