"""Which word is used most?

Shows a job of two steps: the first counts, the second looks at all counts at once, because its
mapper gives every record the same key.

    zmqmr-run examples/most_used_word.py $(python examples/stdlib_files.py)
"""

import re
from collections.abc import Iterable, Iterator

from mrjob.job import MRJob
from mrjob.step import MRStep

WORD = re.compile(r"[\w']+")


class MostUsedWord(MRJob):
    def steps(self) -> list[MRStep]:
        return [
            MRStep(mapper=self.words, combiner=self.count, reducer=self.count),
            MRStep(mapper=self.gather, combiner=self.most, reducer=self.most),
        ]

    def words(self, _: None, line: str) -> Iterator[tuple[str, int]]:
        for word in WORD.findall(line):
            yield word.lower(), 1

    def count(self, word: str, counts: Iterable[int]) -> Iterator[tuple[str, int]]:
        yield word, sum(counts)

    def gather(self, word: str, count: int) -> Iterator[tuple[None, tuple[int, str]]]:
        yield None, (count, word)

    def most(self, _: None, counted: Iterable[tuple[int, str]]) -> Iterator[tuple[None, tuple[int, str]]]:
        yield None, max(counted)


if __name__ == "__main__":
    MostUsedWord.run()
