"""A failure says where in its input an attempt was, and shows the user's part of the traceback."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqmr.errors import Corrupt, InputTruncated, InputVanished, LineTooLong
from zmqmr.messages import Failure, decode, encode
from zmqmr.worker.explain import CommandFailed, Position, excerpt, explain

WORK = "/tmp/job/work"


def failure_of(error: BaseException, position: Position | None = None) -> Failure:
    """What is said of an error, as it arrives at the other end."""
    try:
        raise error
    except BaseException as caught:
        failure = explain(caught, position or Position(), WORK)
    arrived: Failure = decode(encode(failure), Failure)
    assert arrived == failure
    return failure


def taking(block: bytes, count: int, path: str = "/in/file", offset: int = 1000) -> Position:
    """The position of an attempt that has taken `count` lines of a block."""
    position = Position()
    position.at(path, offset, block)
    lines = iter(block.split(b"\n")[:-1] if block.endswith(b"\n") else block.split(b"\n"))
    position.follow(lines)
    for _ in range(count):
        next(lines)
    return position


def test_the_record_in_hand_is_named_with_its_offset() -> None:
    failure = failure_of(ValueError("no number"), taking(b"one\ntwo\nthree\n", 2))
    assert failure.reason == "ValueError: no number"
    assert (failure.path, failure.offset, failure.record) == ("/in/file", 1004, "'two'")


@given(st.lists(st.binary(max_size=8).map(lambda line: line.replace(b"\n", b"")), min_size=1), st.data())
def test_the_record_is_the_line_that_was_taken_last(lines: list[bytes], data: st.DataObject) -> None:
    taken = data.draw(st.integers(1, len(lines)))
    position = taking(b"".join(line + b"\n" for line in lines), taken)
    offset = 1000 + sum(len(line) + 1 for line in lines[: taken - 1])
    assert position.record() == (offset, lines[taken - 1])


def test_a_last_line_without_newline_is_a_record_too() -> None:
    assert taking(b"one\ntwo", 2).record() == (1004, b"two")


def test_before_the_first_record_there_is_none() -> None:
    assert taking(b"one\n", 0).record() is None
    assert Position().record() is None
    failure = failure_of(ValueError("in mapper_init"))
    assert (failure.path, failure.offset, failure.record) == ("", None, "")


def test_a_new_block_forgets_the_record_of_the_one_before() -> None:
    position = taking(b"one\ntwo\n", 1)
    position.at("/in/file", 1008, b"three\n")
    assert position.record() is None


def test_a_record_cannot_move_the_cursor_and_is_cut() -> None:
    assert excerpt(b"\x1b[2J\xff") == r"'\x1b[2J\xff'"
    long = excerpt(b"x" * 5000)
    assert len(long) < 250 and long.endswith("... (5000 bytes)")


@pytest.mark.parametrize("kind", [InputTruncated, InputVanished, LineTooLong])
def test_a_bad_input_is_not_tried_again(kind: Callable[..., Exception]) -> None:
    failure = failure_of(kind("it is bad", "/in/file", 17))
    assert (failure.reason, failure.path, failure.offset, failure.fatal) == (
        "it is bad",
        "/in/file",
        17,
        True,
    )


def test_a_bad_drive_and_a_failed_command_are_tried_again() -> None:
    failure = failure_of(Corrupt("it is bad", "/spill"))
    assert (failure.reason, failure.path, failure.fatal) == ("it is bad", "/spill", False)
    failure = failure_of(CommandFailed("grep ended with exit code 2"), taking(b"one\n", 1))
    assert (failure.reason, failure.path, failure.fatal) == ("grep ended with exit code 2", "/in/file", False)


def test_an_exit_is_explained() -> None:
    assert failure_of(SystemExit(3)).reason == "the job called sys.exit(3) in a task"


def test_an_error_without_words_has_its_name() -> None:
    assert failure_of(KeyboardInterrupt()).reason == "KeyboardInterrupt"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error",
    [ValueError("\udcff"), ValueError("x" * 1_000_000), Unspeakable(), OSError(2, "gone", "/\udcff")],
    ids=["surrogate", "long", "no words", "path"],
)
def test_any_error_can_be_sent(error: Exception) -> None:
    failure = failure_of(error)
    assert failure.reason.startswith((type(error).__name__, "FileNotFoundError"))
    assert len(failure.reason) <= 1000


def test_a_deep_recursion_can_be_sent() -> None:
    def deeper() -> None:
        deeper()

    try:
        deeper()
    except RecursionError as error:
        failure = explain(error, Position(), WORK)
    assert failure.reason.startswith("RecursionError")
    assert len(failure.traceback) <= 50_000
    assert decode(encode(failure), Failure) == failure


def test_files_of_the_job_are_named_as_the_user_knows_them() -> None:
    code = compile("def mapper():\n    return 1 / 0\n", f"{WORK}/job.py", "exec")
    names: dict[str, Callable[[], None]] = {}
    exec(code, names)
    try:
        names["mapper"]()
    except ZeroDivisionError as error:
        failure = explain(error, Position(), WORK)
    assert 'File "job.py", line 2, in mapper' in failure.traceback
