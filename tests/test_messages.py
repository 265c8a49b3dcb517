"""Whatever a peer sends is a message or a ProtocolError, and nothing else."""

import math
from typing import Any

import msgspec
import pytest
from core.strategies import MAP_REDUCE, make_spec, make_split
from hypothesis import given
from hypothesis import strategies as st

from zmqmr.errors import ProtocolError
from zmqmr.messages import (
    AttemptDone,
    AttemptEnded,
    AttemptFailed,
    Begin,
    Commit,
    Failure,
    FrameCount,
    FromAgent,
    FromAttempt,
    FromClient,
    FromExecutor,
    JobEnded,
    Launch,
    OpenJob,
    Register,
    StageProgress,
    Submit,
    ToAgent,
    ToClient,
    ToExecutor,
    decode,
    encode,
)

SPEC = make_spec(MAP_REDUCE, splits=2)
DONE = AttemptDone("job", "map-0-00000", 1, 7, {"0": {"g": {"n": -3}}}, (FrameCount(0, 2, 3),), 1, 2, 3, 4)
FAILURE = Failure("why", "where", "/in", 5, "record", "stderr", True)

MESSAGES: list[tuple[Any, Any]] = [
    (Register("w0", 7, "host", 1, 2, "ipc://x", "1.0"), FromAgent),
    (DONE, FromAgent),
    (AttemptFailed("job", "map-0-00000", 1, 7, FAILURE), FromAgent),
    (OpenJob(SPEC), ToAgent),
    (
        Launch(
            "job", "map-0-00000", 1, 0, 0, ((0, "mapper"),), False, make_split(0), None, 1, ("ipc://x",), 2
        ),
        ToAgent,
    ),
    (Commit("job", "map-0-00000", 1, 0, (FrameCount(0, 2, 3),)), ToAgent),
    (Submit(SPEC, "1.0"), FromClient),
    (JobEnded("job", "failed", ({},), "why", (StageProgress(0, 0, "map", 1, 1, 0, 1, 1, 1, 0),)), ToClient),
    (DONE, FromAttempt),
    (AttemptEnded("map-0-00000", 1, None, FAILURE), FromExecutor),
    (Begin(SPEC, "/work"), ToExecutor),
]
UNIONS = [FromAgent, ToAgent, FromClient, ToClient, FromAttempt, FromExecutor, ToExecutor]


def message_or_error(frame: bytes, union: Any) -> Any:
    """The message, or None; any other error is a failure of the test."""
    try:
        message = decode(frame, union)
    except ProtocolError as error:
        assert str(len(frame)) in str(error)
        return None
    assert isinstance(message, union)
    return message


@pytest.mark.parametrize("message, union", MESSAGES, ids=lambda value: type(value).__name__)
def test_a_message_comes_back_as_it_went(message: Any, union: Any) -> None:
    assert decode(encode(message), union) == message


@given(st.binary(max_size=200), st.sampled_from(UNIONS))
def test_random_bytes_are_an_error(frame: bytes, union: Any) -> None:
    assert message_or_error(frame, union) is None


@given(st.sampled_from(MESSAGES), st.data())
def test_a_cut_message_is_an_error(which: tuple[Any, Any], data: st.DataObject) -> None:
    frame = encode(which[0])
    cut = data.draw(st.integers(0, len(frame) - 1))
    assert message_or_error(frame[:cut], which[1]) is None


@given(st.sampled_from(MESSAGES), st.data())
def test_a_damaged_message_is_a_message_or_an_error(which: tuple[Any, Any], data: st.DataObject) -> None:
    frame = bytearray(encode(which[0]))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    message_or_error(bytes(frame), which[1])


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa4spec", b"\x81\xa4type", b"\x81\x91"])
@pytest.mark.parametrize("union", UNIONS)
def test_deep_nesting_is_an_error(opening: bytes, union: Any) -> None:
    assert message_or_error(opening * 200_000 + b"\xc0", union) is None


@pytest.mark.parametrize(
    "change",
    [
        {"worker": "../w"},
        {"worker": ""},
        {"worker": "w" * 201},
        {"slots": 0},
        {"slots": 4097},
        {"slots": "2"},
        {"epoch": math.inf},
        {"surplus": 1},
        {"type": "Heartbeat"},
        {"type": "Nobody"},
    ],
    ids=str,
)
def test_a_value_out_of_bounds_is_an_error(change: dict[str, Any]) -> None:
    fields = msgspec.to_builtins(Register("w0", 7, "host", 1, 2, "ipc://x", "1.0"))
    assert message_or_error(msgspec.msgpack.encode(fields), FromAgent) is not None
    assert message_or_error(msgspec.msgpack.encode({**fields, **change}), FromAgent) is None


def test_a_message_of_another_conversation_is_an_error() -> None:
    assert message_or_error(encode(Submit(SPEC, "1.0")), FromAgent) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("host", "x" * 1001), ("shuffle", "x" * 1001), ("version", "1\x1b[2J"), ("version", "1" * 101)],
)
def test_what_a_worker_says_of_itself_is_short_T5(field: str, value: str) -> None:
    message = Register("w0", 1, "host", 1, 1, "tcp://127.0.0.1:1", "0.1")
    assert decode(encode(message), FromAgent) == message
    with pytest.raises(ProtocolError):
        decode(encode(msgspec.structs.replace(message, **{field: value})), FromAgent)


def test_an_offset_that_no_worker_could_be_told_is_none_T4() -> None:
    """It would come back to a worker, in a Launch, as a record to leave out."""
    for offset in (-1, 2**62):
        report = AttemptFailed("job", "map-0-00000", 1, 1, Failure("why", offset=offset))
        with pytest.raises(ProtocolError):
            decode(encode(report), FromAgent)


@pytest.mark.parametrize("step", ["x", "-1", "", "1" * 5000, "1\n"])
def test_counters_are_of_a_step_T4(step: str) -> None:
    report = AttemptDone("job", "map-0-00000", 1, 1, {step: {"group": {"name": 1}}})
    with pytest.raises(ProtocolError):
        decode(encode(report), FromAgent)
