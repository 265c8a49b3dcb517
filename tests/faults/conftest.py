"""A place, an input and the expected result for the runs of the fault tests."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from differential.harness import Result
from faults.nemesis import FaultPlace, end_process, oracle, some_words


@pytest.fixture
def place(tmp_path: Path) -> Iterator[FaultPlace]:
    """A new place; its path is short, as the paths of sockets must be. What a failed test left is ended."""
    notes = tmp_path / "notes"
    notes.mkdir()
    with TemporaryDirectory() as folder:
        place = FaultPlace(Path(folder), notes)
        yield place
        for pid in place.processes():
            end_process(pid)


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of about 5 KB of words, enough for a dozen map tasks."""
    path = tmp_path_factory.mktemp("faults") / "words.txt"
    path.write_text(some_words(320))
    return path


@pytest.fixture(scope="session")
def expected(words: Path) -> Result:
    """What mrjob's inline runner makes of `words`."""
    return oracle([words])
