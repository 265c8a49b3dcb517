"""Every init and final; what comes out does not depend on the number of tasks."""

from mrjob.job import MRJob


class Job(MRJob):
    def mapper_init(self):
        self.lengths = {}

    def mapper(self, _, line):
        for word in line.split():
            self.lengths[word] = self.lengths.get(word, 0) + len(word)

    def mapper_final(self):
        yield from self.lengths.items()

    def combiner_init(self):
        self.kept = []

    def combiner(self, word, lengths):
        self.kept.append((word, sum(lengths)))

    def combiner_final(self):
        yield from self.kept

    def reducer_init(self):
        self.sums = []

    def reducer(self, word, lengths):
        self.sums.append((word, sum(lengths)))

    def reducer_final(self):
        yield from self.sums


if __name__ == "__main__":
    Job.run()
