"""The jobs that ship inside mrjob.

Not here: mr_count_lines_wrong, whose output is one record for each map task and so says how the input was
split; the Spark and jar examples, which zmqmr refuses (tests/process/test_bad_input.py).
"""

import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from differential.harness import Result, run_zmqmr

Compare = Callable[..., Result]


def example(name: str) -> Path:
    """The file of a job of mrjob.examples."""
    spec = importlib.util.find_spec("mrjob")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "examples" / name


@pytest.mark.parametrize(
    "name",
    [
        "mr_count_lines_by_file",
        "mr_count_lines_right",
        "mr_most_used_word",
        "mr_next_word_stats",
        "mr_nick_nack",
        "mr_nick_nack_input_format",
        "mr_wc",
        "mr_word_freq_count",
    ],
)
def test_an_example(compare: Compare, text: Path, name: str) -> None:
    compare(example(f"{name}.py"), inputs=[text])


def test_grep(compare: Compare, text: Path) -> None:
    compare(example("mr_grep.py"), ["-e", "t[a-h]"], [text], runner="local")


def test_grep_that_matches_nothing(compare: Compare, text: Path) -> None:
    compare(example("mr_grep.py"), ["-e", "nosuchword"], [text], runner="local")


def test_words_containing_u(compare: Compare, text: Path) -> None:
    compare(example("mr_words_containing_u_freq_count.py"), inputs=[text], runner="local")


def test_the_log_sampler_when_the_sample_is_the_whole(compare: Compare, text: Path) -> None:
    compare(example("mr_log_sampler.py"), ["--sample-size", "100000"], [text], same_bytes=False)


def _rounded(thing: object) -> object:
    """`thing` without what depends on the order of values: the order of dicts and lists, the last digits."""
    if isinstance(thing, float):
        return float(f"{thing:.9g}")
    if isinstance(thing, list):
        return sorted((_rounded(one) for one in thing), key=repr)
    if isinstance(thing, dict):
        return sorted((key, _rounded(value)) for key, value in thing.items())
    return thing


def _parsed(lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        key, value = (json.loads(part) for part in line.split(b"\t"))
        yield repr((_rounded(key), _rounded(value)))


def test_the_text_classifier(compare: Compare) -> None:
    """Its sums of floats depend on the order in which a reducer gets its values, which no runner promises."""
    documents = sorted(example("docs-to-classify").iterdir())
    fixed = {"PYTHONHASHSEED": "0"}
    compare(example("mr_text_classifier.py"), inputs=documents, canonical=_parsed, environ=fixed)


def test_phone_numbers_to_urls(compare: Compare, tmp_path: Path) -> None:
    pages = tmp_path / "pages.warc.wet"
    with pages.open("wb") as file:
        for number in range(60):
            page = f"call 415-{number % 7 + 200}-{1000 + number % 5} or (415) 555-{2000 + number}\n".encode()
            file.write(
                b"WARC/1.0\r\nWARC-Type: conversion\r\n"
                + f"WARC-Target-URI: http://host{number % 4}.example/{number}\r\n".encode()
                + f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012d}>\r\n".encode()
                + f"Content-Type: text/plain\r\nContent-Length: {len(page)}\r\n\r\n".encode()
                + page
                + b"\r\n\r\n"
            )
    result = compare(example("mr_phone_to_url.py"), inputs=[pages])
    assert sum(result.lines.values()) > 20


def test_the_job_that_always_fails_fails(text: Path, tmp_path: Path) -> None:
    result = run_zmqmr(example("mr_boom.py"), [], [text], tmp_path / "out")
    assert result.rc == 1
    assert "BOOM" in result.stderr
    assert result.files == {}
