"""Every protocol of mrjob, and protocols that users write, in every place."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import mrjob.protocol
import pytest
from differential.harness import Result

Compare = Callable[..., Result]

_NEEDS = {"Rapid": "rapidjson", "Simple": "simplejson", "Ultra": "ujson"}


def _usable(name: str) -> bool:
    return all(importlib.util.find_spec(needs) for word, needs in _NEEDS.items() if name.startswith(word))


NAMES = sorted(
    name for name in dir(mrjob.protocol) if name.endswith("Protocol") and name[0] != "_" and _usable(name)
)


@pytest.mark.parametrize("name", NAMES)
def test_between_mapper_and_reducer(compare: Compare, text: Path, name: str) -> None:
    compare("protocols", ["--between", name], [text])


@pytest.mark.parametrize("name", NAMES)
def test_as_the_output(compare: Compare, text: Path, name: str) -> None:
    compare("protocols", ["--writes", name], [text])


def _encoded(name: str) -> bytes:
    protocol = getattr(mrjob.protocol, name)()
    things: list[object] = [f"k{i % 50} \u00e9" for i in range(300)]
    if name.startswith("Bytes"):
        things = [str(thing).encode() for thing in things]
    elif not name.startswith(("Text", "Raw")):
        things = [[thing, i, {"of": 0.5}] for i, thing in enumerate(things)]
    lines: list[bytes] = [protocol.write(thing, thing) for thing in things]
    return b"".join(line + b"\n" for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_as_the_input(compare: Compare, tmp_path: Path, name: str) -> None:
    path = tmp_path / "input"
    path.write_bytes(_encoded(name))
    compare("protocols", ["--reads", name], [path])


@pytest.mark.parametrize("kind", ["NoTab", "CarriageReturn", "Spaces", "SpaceSeparated", "Binary"])
def test_a_protocol_that_the_user_wrote(compare: Compare, text: Path, kind: str) -> None:
    compare("own_protocols", ["--kind", kind], [text])


@pytest.mark.parametrize(
    "value",
    [
        "1e400",
        "-0",
        "1E5",
        "12345678901234567890123",
        '"\\ud800"',
        '"\\u0000\\u2028"',
        "[ 1 , 2 ]",
        '{"b":1,"a":2,"b":3}',
    ],
)
def test_json_that_two_readers_may_read_differently(compare: Compare, tmp_path: Path, value: str) -> None:
    path = tmp_path / "input"
    path.write_text("".join(f'"k{i}"\t{value}\n' for i in range(20)))
    args = ["--reads", "JSONProtocol", "--between", "JSONProtocol", "--writes", "JSONProtocol"]
    compare("protocols", args, [path])


def test_the_list_of_protocols_is_not_empty_by_mistake() -> None:
    assert {"JSONProtocol", "PickleProtocol", "ReprValueProtocol", "BytesProtocol"} <= set(NAMES)
