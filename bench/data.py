"""The benchmark's input, the same bytes everywhere and each time.

Text is words with the frequencies of natural language (Zipf's law: the n-th word is as frequent as
1/n), 7.5 bytes a word with its space. Records are lines of 100 bytes: a key, a number, filling.
Only random.random() is used, which gives the same numbers in every version of Python.
"""

import os
import random
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

VOCABULARY = 100_000
WORDS_PER_LINE = 12
RECORD_BYTES = 100
RECORDS_PER_KEY = 3  # on average
TINY = b"the cat and the dog\n"


def words(count: int = VOCABULARY) -> list[bytes]:
    """`count` different words of 2 to 11 letters; the first ones are the most frequent."""
    rng = random.Random(1)
    found: dict[bytes, None] = {}
    while len(found) < count:
        # The lengths take turns, so that their mean does not hang on a few frequent words.
        # Short words run out: a word that is there already gets longer.
        length = 2 + (len(found) * 7 + 2) % 10
        word = bytes(97 + int(rng.random() * 26) for _ in range(length))
        while word in found:
            word += bytes([97 + int(rng.random() * 26)])
        found[word] = None
    return list(found)


def text(size: int) -> Iterator[bytes]:
    """Lines of words, `size` bytes or up to a line more."""
    vocabulary = words()
    weights = list(accumulate(1 / rank for rank in range(1, len(vocabulary) + 1)))
    total = weights[-1]
    draw = random.Random(2).random
    written = 0
    while written < size:
        line = b" ".join([vocabulary[bisect(weights, draw() * total)] for _ in range(WORDS_PER_LINE)])
        yield line + b"\n"
        written += len(line) + 1


def records(count: int) -> Iterator[bytes]:
    """`count` lines of 100 bytes: key, number below 1000, filling; one key in three lines."""
    draw = random.Random(3).random
    keys = max(1, count // RECORDS_PER_KEY)
    filling = b"abcdefghijklmnopqrstuvwxyz" * 4
    for _ in range(count):
        start = b"k%09d %d " % (int(draw() * keys), int(draw() * 1000))
        yield start + filling[: RECORD_BYTES - 1 - len(start)] + b"\n"


def make(kind: str, size: int, cache: Path) -> Path:
    """The file of `kind` (text, records or tiny), made in `cache` unless it is there.

    `size` is of the text, in bytes; for each 32 bytes of it there is one record.
    """
    path = cache / f"{kind}-{size}.txt"
    if not path.exists():
        lines = {
            "text": lambda: text(size),
            "records": lambda: records(max(1, size // 32)),
            "tiny": lambda: iter([TINY]),
        }[kind]()
        cache.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}")
        with open(aside, "wb") as file:
            file.writelines(lines)
        aside.rename(path)
    return path
