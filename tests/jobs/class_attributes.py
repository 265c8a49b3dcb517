"""Attributes of the class and of its base, and numbers kept on it."""

from mrjob.job import MRJob


class Base(MRJob):
    threshold = 4
    seen = None

    def wanted(self, word):
        return len(word) >= self.threshold


class Job(Base):
    threshold = 6
    weights = {"a": 2}

    def mapper_init(self):
        type(self).seen = set()

    def mapper(self, _, line):
        for word in line.split():
            self.seen.add(word)
            if self.wanted(word):
                yield word, self.weights.get(word[:1], 1)

    def reducer(self, word, counts):
        yield word, sum(counts)


if __name__ == "__main__":
    Job.run()
