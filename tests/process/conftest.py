"""A place and an input for the runs of the process tests."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from process.places import Place


@pytest.fixture
def place() -> Iterator[Place]:
    """A new place; its path is short, as the paths of sockets must be."""
    with TemporaryDirectory() as folder:
        yield Place(Path(folder))


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A small file of words."""
    path = tmp_path / "words.txt"
    path.write_text("".join(f"w{n % 17} w{n % 5} and {'x' * (n % 7)}\n" for n in range(300)))
    return path
