"""The most used word: two steps, the second with a single key."""

from mrjob.job import MRJob
from mrjob.step import MRStep


class MostUsed(MRJob):
    def steps(self):
        return [
            MRStep(mapper=self.words, combiner=self.count, reducer=self.count_pairs),
            MRStep(reducer=self.most),
        ]

    def words(self, _, line):
        for word in line.split():
            yield word, 1

    def count(self, word, counts):
        yield word, sum(counts)

    def count_pairs(self, word, counts):
        yield None, (sum(counts), word)

    def most(self, _, counted):
        yield None, max(counted)


if __name__ == "__main__":
    MostUsed.run()
