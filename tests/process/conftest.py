"""A place and an input for the runs of the process tests."""

import os
import subprocess
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A drive of 6 MiB, empty."""
    if os.geteuid() != 0:
        pytest.skip("needs root: only root can mount a small drive")
    folder = tmp_path / "drive"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
