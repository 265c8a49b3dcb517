"""The examples do what they say, on mrjob alone and on zmqmr."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from environment import ROOT

EXAMPLES = ROOT / "examples"
DATA = EXAMPLES / "data"
JOBS = sorted(path for path in EXAMPLES.glob("*.py") if "MRJob" in path.read_text())
RUNNERS = {"mrjob": ["-r", "inline"], "zmqmr": []}
ONE = "the cat\nThe dog and the bird isn't\n\n"
TWO = "a cat\n" + "x" * 50 + "\n"


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    """Two text files, and a third that is a copy of the first."""
    contents = {"one.txt": ONE, "two.txt": TWO, "three.txt": ONE}
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    return [str(tmp_path / name) for name in contents]


def run(runner: str, job: str, *arguments: object, fails: bool = False) -> tuple[list[str], str]:
    """The lines that an example wrote, and its standard error."""
    start = [sys.executable] + (["-m", "zmqmr.cli.run"] if runner == "zmqmr" else [])
    command = [*start, str(EXAMPLES / job), *RUNNERS[runner], "--no-conf", *map(str, arguments)]
    environ = {**os.environ, "ZMQMR_STATUS_PORT": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stdout.splitlines(), done.stderr


def pairs(lines: list[str]) -> list[list[object]]:
    """Lines of key, TAB, value, decoded and in order."""
    return sorted([json.loads(part) for part in line.split("\t")] for line in lines)


def test_word_freq(runner: str, texts: list[str]) -> None:
    lines, _ = run(runner, "word_freq.py", *texts)
    words = re.findall(r"[\w']+", (ONE + TWO + ONE).lower())
    assert pairs(lines) == sorted([word, count] for word, count in Counter(words).items())


def test_most_used_word(runner: str, texts: list[str]) -> None:
    lines, _ = run(runner, "most_used_word.py", *texts)
    assert pairs(lines) == [[None, [6, "the"]]]


def test_sessions(runner: str) -> None:
    lines, _ = run(runner, "sessions.py", DATA / "visits.txt")
    assert pairs(lines) == [
        ["ann", ["/home", "/help"]],
        ["ann", ["/home", "/prices", "/order"]],
        ["bob", ["/home"]],
        ["bob", ["/home", "/prices", "/order"]],
        ["cid", ["/home", "/help"]],
    ]


def test_sessions_with_another_pause(runner: str) -> None:
    lines, _ = run(runner, "sessions.py", "--pause", 5, DATA / "visits.txt")
    assert len(lines) == 8


def test_join(runner: str) -> None:
    lines, stderr = run(runner, "join.py", DATA / "customers.tsv", DATA / "orders.tsv")
    assert pairs(lines) == [
        ["o1", ["Bob", 1990]],
        ["o2", ["Ann", 500]],
        ["o3", ["Bob", 50]],
        ["o4", [None, 725]],
    ]
    assert "of an unknown customer=1" in stderr


def test_grep(runner: str, texts: list[str]) -> None:
    lines, _ = run(runner, "grep.py", "--pattern", r"^\w+ cat$", *texts)
    found = sorted(line.split("/")[-1] for line in lines)
    assert found == ["one.txt:the cat", "three.txt:the cat", "two.txt:a cat"]


def test_longest_lines(runner: str, texts: list[str]) -> None:
    lines, stderr = run(runner, "longest_lines.py", "--top", 2, *texts[:2])
    found = [(length, Path(path).name, line) for length, (path, line) in pairs(lines)]
    assert found == [(26, "one.txt", "The dog and the bird isn't"), (50, "two.txt", "x" * 50)]
    assert "read=5" in stderr
    assert "blank=1" in stderr


def test_duplicate_files(runner: str, texts: list[str]) -> None:
    lines, stderr = run(runner, "duplicate_files.py", *texts)
    ((_, same),) = pairs(lines)
    assert [Path(uri).name for uri in same] == ["one.txt", "three.txt"]
    assert "superfluous=1" in stderr


def test_json_lines(runner: str) -> None:
    lines, stderr = run(runner, "json_lines.py", DATA / "requests.jsonl")
    assert pairs(lines) == [["/help", 7.0], ["/home", 15.0], ["/order", 100.0]]
    for name in ("JSONDecodeError", "KeyError", "TypeError"):
        assert f"{name}=1" in stderr


def test_json_lines_strict(runner: str) -> None:
    _, stderr = run(runner, "json_lines.py", "--strict", DATA / "requests.jsonl", fails=True)
    assert "JSONDecodeError" in stderr


def test_the_standard_library_is_found_without_its_tests() -> None:
    command = [sys.executable, str(EXAMPLES / "stdlib_files.py")]
    paths = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(paths) > 300
    assert all(path.endswith(".py") and Path(path).is_file() for path in paths)
    assert {"argparse.py", "decoder.py"} <= {Path(path).name for path in paths}
    assert not {"site-packages", "test"} & {part for path in paths for part in Path(path).parts}


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_the_docstring_holds_a_command_that_fits(job: Path) -> None:
    (command,) = re.findall(r"^    zmqmr-run (.*)$", job.read_text(), re.MULTILINE)
    files = [word for word in shlex.split(command) if word.startswith("examples/")]
    assert files[0] == f"examples/{job.name}"
    assert all((ROOT / file.rstrip(")")).is_file() for file in files)


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.stem)
def test_an_example_is_plain_mrjob(job: Path) -> None:
    assert not re.search(r"^\s*(import|from) zmqmr", job.read_text(), re.MULTILINE)


def test_the_readme_lists_every_job() -> None:
    listed = re.findall(r"^\| \[(\S+\.py)\]\((\S+)\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted((job.name, job.name) for job in JOBS)
