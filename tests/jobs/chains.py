"""Chains of steps of many shapes, chosen with --chain."""

from mrjob.job import MRJob
from mrjob.step import MRStep


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--chain", default="m")

    def words(self, _, line):
        for word in line.split():
            yield word, 1

    def swap(self, word, count):
        yield count, word

    def initials(self, word, count):
        yield str(word)[:1], count

    def total(self, word, counts):
        yield word, sum(counts)

    def biggest(self, initial, counts):
        yield initial, max(counts)

    def gather(self, key, values):
        yield key, sorted(values)

    def same(self, key, values):
        for value in values:
            yield key, value

    def steps(self):
        return {
            "m": [MRStep(mapper=self.words)],
            "m,m,m": [
                MRStep(mapper=self.words),
                MRStep(mapper=self.swap),
                MRStep(mapper=self.initials),
            ],
            "mr,r": [MRStep(mapper=self.words, reducer=self.total), MRStep(reducer=self.gather)],
            "mr,m": [MRStep(mapper=self.words, reducer=self.total), MRStep(mapper=self.swap)],
            "mcr,mcr,mr": [
                MRStep(mapper=self.words, combiner=self.total, reducer=self.total),
                MRStep(mapper=self.initials, combiner=self.biggest, reducer=self.biggest),
                MRStep(mapper=self.swap, reducer=self.gather),
            ],
            "m,mr": [
                MRStep(mapper=self.words),
                MRStep(mapper=self.initials, reducer=self.total),
            ],
            "m,r": [MRStep(mapper=self.words), MRStep(reducer=self.total)],
            "mr,r,m,r": [
                MRStep(mapper=self.words, reducer=self.total),
                MRStep(reducer=self.total),
                MRStep(mapper=self.initials),
                MRStep(reducer=self.biggest),
            ],
            "mc": [MRStep(mapper=self.words, combiner=self.same)],
            "m,c": [MRStep(mapper=self.words), MRStep(combiner=self.same)],
            "m,cr": [MRStep(mapper=self.words), MRStep(combiner=self.total, reducer=self.total)],
            "mr,c,m": [
                MRStep(mapper=self.words, reducer=self.total),
                MRStep(combiner=self.same),
                MRStep(mapper=self.swap),
            ],
        }[self.options.chain]


if __name__ == "__main__":
    Job.run()
