"""Inputs for the differential tests, and the comparison as a fixture."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from differential import harness


def make_text(seed: int, size: int) -> bytes:
    """About `size` bytes of words, some of them not ASCII, on lines of many lengths."""
    chance = random.Random(seed)
    letters = "etaoinsrhdlucmfywgpbvkxqjz\u00e9\u00fc\u4e2d"
    words = ["".join(chance.choices(letters, k=chance.randint(1, 9))) for _ in range(300)]
    lines = []
    length = 0
    while length < size:
        lines.append(" ".join(chance.choices(words, k=chance.choice((0, 1, 3, 8, 20)))))
        length += len(lines[-1].encode()) + 1
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of about 20 KB of words."""
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_bytes(make_text(7, 20_000))
    return path


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., harness.Result]:
    """harness.compare with its output directories under this test's own."""
    return partial(harness.compare, tmp_path)
