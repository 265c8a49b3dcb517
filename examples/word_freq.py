"""How often is each word used?

Shows a mapper, a combiner and a reducer.

    zmqmr-run examples/word_freq.py $(python examples/stdlib_files.py)
"""

import re
from collections.abc import Iterable, Iterator

from mrjob.job import MRJob

WORD = re.compile(r"[\w']+")


class WordFreq(MRJob):
    def mapper(self, _: None, line: str) -> Iterator[tuple[str, int]]:
        for word in WORD.findall(line):
            yield word.lower(), 1

    def combiner(self, word: str, counts: Iterable[int]) -> Iterator[tuple[str, int]]:
        yield word, sum(counts)

    def reducer(self, word: str, counts: Iterable[int]) -> Iterator[tuple[str, int]]:
        yield word, sum(counts)


if __name__ == "__main__":
    WordFreq.run()
