"""Reducers and combiners that do not read all of their values, chosen with --what."""

import itertools

from mrjob.job import MRJob
from mrjob.step import MRStep


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--what", required=True)

    def words(self, _, line):
        for word in line.split():
            yield word, len(word)

    def ignores(self, word, lengths):
        yield word, "seen"

    def reads_one(self, word, lengths):
        yield word, next(lengths)

    def reads_one_in_a_loop(self, word, lengths):
        for length in lengths:
            yield word, length
            break

    def half_read(self, word, lengths):
        yield word, sum(1 for _ in itertools.islice(lengths, 2))

    def skips_keys(self, word, lengths):
        if len(word) % 2:
            yield word, sum(lengths)

    def returns_nothing(self, word, lengths):
        return None

    def returns_a_list(self, word, lengths):
        return [(word, max(lengths))]

    def reads_after_the_end(self, word, lengths):
        count = sum(1 for _ in lengths)
        yield word, [min(count, 1), list(lengths)]

    def keeps_the_generators(self, word, lengths):
        self.kept = [*getattr(self, "kept", []), lengths]
        yield word, next(lengths)

    def steps(self):
        return [MRStep(mapper=self.words, reducer=getattr(self, self.options.what))]


if __name__ == "__main__":
    Job.run()
