"""Any bytes as input: split anywhere, every line is read once, and as stock mrjob reads it."""

import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import pytest
from differential.harness import JOBS, SMALL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zmqmr.register  # noqa: F401

BOUNDED = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LINES = st.lists(
    st.one_of(
        st.binary(max_size=12).filter(lambda line: b"\n" not in line),
        st.sampled_from([b"", b"\r", b"a\tb", b"\x00", b"\xff\xfe", b"caf\xc3\xa9", b" ", b"a", b"a", b"\t"]),
    ),
    max_size=12,
)
FILES = st.lists(
    st.tuples(LINES, st.sampled_from([b"\n", b"\r\n"]), st.booleans()).map(
        lambda drawn: drawn[1].join(drawn[0]) + (drawn[1] if drawn[2] else b"")
    ),
    min_size=1,
    max_size=4,
)


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, JOBS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # mrjob finds the script of a class through its module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def jobs() -> dict[str, ModuleType]:
    return {name: _load(name) for name in ("echo_bytes", "echo_text")}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment of small settings that a test may make smaller."""
    for name in [name for name in os.environ if name.startswith("ZMQMR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ZMQMR_STATUS_PORT", "0")
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    yield monkeypatch


def _output(module: ModuleType, runner: str, inputs: list[Path]) -> Counter[bytes]:
    job = module.Job(["-r", runner, "--no-conf", *map(str, inputs)])
    with job.make_runner() as made:
        made.run()
        return Counter(b"".join(made.cat_output()).split(b"\n"))


def _cut(environ: pytest.MonkeyPatch, split: int, block: int) -> None:
    environ.setenv("ZMQMR_SPLIT_BYTES", str(split))
    environ.setenv("ZMQMR_SPLIT_FLOOR_BYTES", str(split))
    environ.setenv("ZMQMR_BLOCK_BYTES", str(block))


@pytest.mark.parametrize("name", ["echo_bytes", "echo_text"])
@BOUNDED
@given(files=FILES, split=st.integers(1, 40), block=st.integers(1, 40))
def test_any_bytes_cut_anywhere(
    jobs: dict[str, ModuleType],
    tiny: pytest.MonkeyPatch,
    name: str,
    files: list[bytes],
    split: int,
    block: int,
) -> None:
    _cut(tiny, split, block)
    with TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.txt") for number in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        assert _output(jobs[name], "zeromq", paths) == _output(jobs[name], "inline", paths)


@pytest.mark.parametrize(
    "data", [b"a\n\nbb\r\nccc\n\r\n\nlast", b"\n\n\n\n", b"abcdefgh", b"a\rb\r\nc\n"], ids=repr
)
def test_every_split_boundary(
    jobs: dict[str, ModuleType], tiny: pytest.MonkeyPatch, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "text"
    path.write_bytes(data)
    stock = _output(jobs["echo_bytes"], "inline", [path])
    for split in range(1, len(data) + 1):
        _cut(tiny, split, 1 + split % 3)
        assert _output(jobs["echo_bytes"], "zeromq", [path]) == stock, split
