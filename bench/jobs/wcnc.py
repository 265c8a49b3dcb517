"""Word count without a combiner: every word goes through the shuffle."""

from mrjob.job import MRJob


class WordCountNoCombiner(MRJob):
    def mapper(self, _, line):
        for word in line.split():
            yield word, 1

    def reducer(self, word, counts):
        yield word, sum(counts)


if __name__ == "__main__":
    WordCountNoCombiner.run()
