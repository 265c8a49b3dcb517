"""The fast ways are held against mrjob's own protocols: same bytes, same values, same errors, same place."""

import enum
import io
import json
import math
import pickle
import random
import struct
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import mrjob.protocol
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mrjob.protocol import (
    BytesProtocol,
    BytesValueProtocol,
    PickleProtocol,
    PickleValueProtocol,
    RapidJSONProtocol,
    ReprProtocol,
    ReprValueProtocol,
    SimpleJSONProtocol,
    StandardJSONProtocol,
    StandardJSONValueProtocol,
    TextProtocol,
    TextValueProtocol,
    UltraJSONProtocol,
)

from zmqmr.data import codecs
from zmqmr.data.codecs import (
    ROUND_TRIP_TYPES,
    always_has_tab,
    block_decoder,
    json_dumps,
    json_loads,
    line_writer,
    loads_for,
    writer_kind,
)

relaxed = settings(deadline=None)  # how long an example takes is not what is tested

# No pickles: arbitrary bytes are not for pickle to read.
READ_PROTOCOLS = [
    *(TextValueProtocol, TextProtocol, BytesValueProtocol, BytesProtocol),
    *(StandardJSONProtocol, StandardJSONValueProtocol, ReprProtocol, ReprValueProtocol),
]
NOT_ALWAYS_TAB = [
    *(TextValueProtocol, TextProtocol, BytesProtocol, BytesValueProtocol, ReprProtocol, ReprValueProtocol),
    *(
        StandardJSONValueProtocol,
        PickleValueProtocol,
        UltraJSONProtocol,
        RapidJSONProtocol,
        SimpleJSONProtocol,
    ),
]


class Colour(enum.IntEnum):
    RED = 1


class Number(int):
    def __repr__(self) -> str:
        return "a number"


class Real(float):
    def __repr__(self) -> str:
        return "a real"


class Word(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "a word"


class Table(dict[Any, Any]):
    pass


class Subclassed(StandardJSONProtocol):
    pass


class OwnCodec(StandardJSONProtocol):
    """Reads and writes values of its own making, with mrjob's way to split a line."""

    def _loads(self, value: bytes) -> Any:
        return ("own", json.loads(value))

    def _dumps(self, value: Any) -> bytes:
        return b"own " + json.dumps(value).encode()


class OwnSplit(StandardJSONProtocol):
    def read(self, line: bytes) -> tuple[Any, Any]:
        key, value = line.split(b"|", 1)
        return self._loads(key), self._loads(value)


Point = namedtuple("Point", "x y")

any_text = st.text(st.characters(exclude_categories=[]), max_size=12)
any_float = st.floats() | st.integers(0, 2**64 - 1).map(
    lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]
)
any_int = st.integers() | st.integers(-(2**70), 2**70) | st.sampled_from([10**400, -(2**63), 2**63, 2**64])
scalars = st.none() | st.booleans() | any_int | any_float | any_text
odd_scalars = st.sampled_from([Colour.RED, Number(7), Real(1.5), Real("nan"), Word("hé"), b"bytes", {1}, 1j])
dict_keys = scalars | st.sampled_from([Colour.RED, Number(7), Real(1.5), Word("hé"), (1, 2), b"k"])


def containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(children, max_size=4)
    dicts = st.dictionaries(dict_keys, children, max_size=4)
    return (
        lists
        | lists.map(tuple)
        | dicts
        | dicts.map(OrderedDict)
        | dicts.map(Table)
        | st.builds(Point, children, children)
    )


plain_values = st.recursive(
    scalars,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(any_text, children, max_size=4),
    max_leaves=12,
)
odd_values = st.recursive(scalars | odd_scalars, containers, max_leaves=12)

json_tokens = rb'" \ \u \ud83d \ude00 { } [ ] : , null true NaN -Infinity - 0 12 . e E+ e-400'.split()
odd_bytes = [b" ", b"\t", b"\r", b"\x0c", b"\x00", b"\x7f", b"\xff"]
odd_sequences = [b"\xed\xa0\x80", b"\xef\xbb\xbf", b"9" * 30]
odd_letters = [letter.encode() for letter in "é😀\xa0"]
json_pieces = st.sampled_from([*json_tokens, *odd_bytes, *odd_sequences, *odd_letters])
number_texts = st.from_regex(r"-?[0-9]{1,40}(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,3})?", fullmatch=True)
json_texts = (
    plain_values.map(json.dumps)
    | plain_values.map(lambda value: json.dumps(value, indent=1, ensure_ascii=False))
    | number_texts
)
nearly_json = st.lists(json_pieces, max_size=8).map(b"".join)
json_bytes = json_texts.map(lambda text: text.encode("utf_8", "surrogatepass")) | nearly_json

line_pieces = st.sampled_from([b"a", b"\t", b"\r", b"\xff", b"\xc3\xa9", b"\x00", b"\x85", b"\x0b", b"\x1c"])
line_bytes = (
    st.binary(max_size=12)
    | st.lists(line_pieces, max_size=6).map(b"".join)
    | json_bytes
    | st.tuples(json_bytes, json_bytes).map(b"\t".join)
    | st.just(b'["the same key"]\t1')
)
blocks = st.tuples(
    st.lists(line_bytes, max_size=6).map(b"\n".join), st.sampled_from([b"", b"\n", b"\r\n", b"\r"])
).map(b"".join)


def same(left: Any, right: Any) -> bool:
    """Equal in value, type and order, down to the sign of zero; NaN is the same as NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left.hex() == right.hex()
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    return bool(left == right)


def outcome(function: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    try:
        return ("value", function(*args))
    except Exception as error:
        return ("error", type(error), str(error))


def read_by_mrjob(read: Callable[[bytes], tuple[Any, Any]], block: bytes) -> Iterator[tuple[Any, Any]]:
    """What `MRJob._wrap_protocols` does with its input."""
    for line in io.BytesIO(block):
        key, value = read(line.rstrip(b"\r\n"))
        yield key, value


def drain(pairs: Any) -> tuple[list[Any], tuple[Any, ...] | None]:
    """All records up to the end or the first error, and that error."""
    records: list[Any] = []
    try:
        for pair in pairs:
            records.append(pair)
    except Exception as error:
        return records, (type(error), str(error))
    return records, None


@pytest.mark.parametrize("protocol", READ_PROTOCOLS)
@relaxed
@given(block=blocks)
@example(block=b"")
@example(block=b"\n")
@example(block=b"\r")
@example(block=b"\r\r\n\r\n\n\ra\r\r")
@example(block=b"a\x0bb\x85c\x1cd\xe2\x80\xa8e\n\xff\n")
@example(block=b'"a"\t1\n"a"\t2\nNaN\t1e400\n"a"\t"\\ud800"\n"a"\n"b"\t3\n')
@example(block=b"(1, 'a')\t{2}\n(1, 'a')\tprint\n")
def test_a_block_gives_the_records_and_the_error_that_mrjob_gives(protocol: Any, block: bytes) -> None:
    records, error = drain(block_decoder(protocol().read)(block).pairs)
    expected, expected_error = drain(read_by_mrjob(protocol().read, block))
    assert same(records, expected)
    assert error == expected_error


@pytest.mark.parametrize("protocol", READ_PROTOCOLS)
@relaxed
@given(block=blocks)
def test_the_lines_left_tell_which_record_is_at_hand(protocol: Any, block: bytes) -> None:
    total = len(list(io.BytesIO(block)))
    pairs, lines = block_decoder(protocol().read)(block)
    taken = 0
    assert lines.__length_hint__() == total
    try:
        for _ in pairs:
            taken += 1
            assert lines.__length_hint__() == total - taken
    except Exception:
        assert lines.__length_hint__() == total - taken - 1
    else:
        assert taken == total


def test_a_bad_record_raises_only_once_it_is_asked_for() -> None:
    pairs, lines = block_decoder(StandardJSONProtocol().read)(b"1\t1\n2\t2\nbroken\n4\t4\n")
    iterator = iter(pairs)
    assert [next(iterator), next(iterator)] == [(1, 1), (2, 2)]
    with pytest.raises(ValueError, match="not enough values to unpack") as caught:
        next(iterator)
    assert caught.value.__context__ is None
    assert lines.__length_hint__() == 1


@pytest.mark.parametrize(
    ("protocol", "block"),
    [
        (StandardJSONProtocol, b"1\t{]\n"),
        (StandardJSONProtocol, b"{]\t1\n"),
        (StandardJSONValueProtocol, b"{]\n"),
    ],
)
def test_an_error_shows_without_the_fast_decoders_own_error(protocol: Any, block: bytes) -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        list(block_decoder(protocol().read)(block).pairs)
    assert caught.value.__context__ is None


def test_equal_neighbouring_keys_are_one_object_across_blocks_as_in_mrjob() -> None:
    blocks = [b"[1]\t1\n[1]\t2\n", b"[1]\t3\n[2]\t4\n[1]\t5\n", b"[NaN]\t6\n[NaN]\t7\n[NaN]\tNaN\n"]
    decode = block_decoder(StandardJSONProtocol().read)
    keys = [key for block in blocks for key, _ in decode(block).pairs]
    expected = [key for key, _ in read_by_mrjob(StandardJSONProtocol().read, b"".join(blocks))]
    assert [[a is b for b in keys] for a in keys] == [[a is b for b in expected] for a in expected]


def test_a_changed_method_is_called() -> None:
    protocol = TextValueProtocol()
    protocol.read = lambda line: ("shadow", line)
    assert list(block_decoder(protocol.read)(b"a\n").pairs) == [("shadow", b"a")]

    own = StandardJSONProtocol()
    own._loads = lambda value: value
    assert list(block_decoder(own.read)(b"1\t2\n").pairs) == [(b"1", b"2")]
    assert loads_for(own.read)(b"1") == b"1"  # type: ignore[misc]

    assert list(block_decoder(OwnCodec().read)(b"1\t2\n").pairs) == [(("own", 1), ("own", 2))]
    assert list(block_decoder(OwnSplit().read)(b"1|2\n").pairs) == [(1, 2)]
    assert list(block_decoder(lambda line: [line, len(line)])(b"a\n\n").pairs) == [(b"a", 1), (b"", 0)]  # type: ignore[arg-type, return-value]


def test_a_reader_that_gives_three_values_fails_as_in_mrjob() -> None:
    with pytest.raises(ValueError, match="too many values to unpack"):
        list(block_decoder(lambda line: (1, 2, 3))(b"a\n").pairs)  # type: ignore[arg-type, return-value]


def test_a_job_that_replaces_json_or_a_protocols_method_is_not_bypassed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", lambda value: "patched")
        write = StandardJSONProtocol().write
        assert writer_kind(write) == "other"
        assert line_writer(write)(1, 2) == b"patched\tpatched"
        assert not always_has_tab(write)
    with monkeypatch.context() as patch:
        patch.setattr(json, "loads", lambda text: "patched")
        assert list(block_decoder(StandardJSONProtocol().read)(b"1\t2").pairs) == [("patched", "patched")]
        assert loads_for(StandardJSONProtocol().read)(b"1") == "patched"  # type: ignore[misc]
    with monkeypatch.context() as patch:
        patch.setattr(StandardJSONProtocol, "_dumps", lambda self, value: b"patched")
        assert line_writer(StandardJSONProtocol().write)(1, 2) == b"patched\tpatched"
    with monkeypatch.context() as patch:
        patch.setattr(json.JSONEncoder, "default", lambda self, value: "patched")
        assert line_writer(StandardJSONProtocol().write)(1, {2}) == b'1\t"patched"'


@settings(deadline=None, max_examples=300)
@given(text=json_texts | st.text(max_size=12) | json_bytes.map(lambda raw: raw.decode("utf_8", "replace")))
@example(text="\ufeff1")
@example(text="9" * 4300)
@example(text="9" * 4301)
@example(text="-" + "9" * 4300)
@example(text="-0")
@example(text="1e400")
@example(text='{"a": 1, "b": 2, "a": 3}')
@example(text='"\\ude00\\ud83d"')
@example(text="\x0c1")
@example(text="[" * 100_000)
def test_json_loads_is_json_loads(text: str) -> None:
    got, expected = outcome(json_loads, text), outcome(json.loads, text)
    assert same(got, expected)


def test_json_loads_rounds_floats_as_python_does() -> None:
    source = random.Random(1)
    for _ in range(5000):
        low = abs(struct.unpack("<d", source.randbytes(8))[0])
        if not 1e-300 < low < 1e300:
            continue
        # The longest and hardest texts: the exact middle of two neighbours, and one digit beyond it.
        middle = exact_middle(low)
        for text in (repr(low), middle, middle + "1"):
            assert json_loads(text).hex() == float(text).hex()


def exact_middle(low: float) -> str:
    """The decimal expansion, with a point, of the middle of `low` and the next float."""
    (top, bottom), (top2, bottom2) = low.as_integer_ratio(), math.nextafter(low, math.inf).as_integer_ratio()
    numerator, denominator = top * bottom2 + top2 * bottom, 2 * bottom * bottom2
    digits = max(1, denominator.bit_length() - 1)
    whole, rest = divmod(numerator * 10**digits // denominator, 10**digits)
    return f"{whole}.{rest:0{digits}d}"


@settings(deadline=None, max_examples=300)
@given(value=odd_values | plain_values)
@example(value=-0.0)
@example(value=math.nan)
@example(value=[math.inf, -math.inf])
@example(value=10**4300)
@example(value=[10**4300])
@example(value={1: 1, "1": 2, None: 3, False: 4, 1.5: 5, math.nan: 6})
@example(value="\ud83d\ude00\ud800\x7f\u2028</é")
def test_json_dumps_is_json_dumps(value: Any) -> None:
    assert outcome(json_dumps, value) == outcome(json.dumps, value)


def test_json_dumps_works_again_after_values_it_refused() -> None:
    circular: list[Any] = [1]
    circular.append(circular)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    inner = [1]
    half_way = [inner, {"a": [inner, {2}]}]
    for value, error in ((circular, ValueError), (deep, RecursionError), (half_way, TypeError)):
        for _ in range(2):
            with pytest.raises(error):
                json_dumps(value)
    half_way.pop()
    assert json_dumps(half_way) == "[[1]]"
    assert json_dumps([inner, inner]) == "[[1], [1]]"
    assert codecs._markers == {}


@pytest.mark.parametrize(
    "protocol", [StandardJSONProtocol, StandardJSONValueProtocol, TextValueProtocol, PickleProtocol]
)
@relaxed
@given(key=odd_values, value=odd_values)
def test_a_written_line_is_the_protocols_own(protocol: Any, key: Any, value: Any) -> None:
    write = protocol().write
    assert outcome(line_writer(write), key, value) == outcome(write, key, value)


@pytest.mark.parametrize("protocol", [StandardJSONProtocol, PickleProtocol])
@relaxed
@given(key=odd_values | st.sampled_from(["\t", "\n", "\r\n", "\x00"]), value=odd_values)
def test_a_line_said_to_hold_a_tab_holds_one_and_no_newline(protocol: Any, key: Any, value: Any) -> None:
    write = protocol().write
    assert always_has_tab(write)
    kind, line, *_ = outcome(line_writer(write), key, value)
    if kind == "value":
        assert b"\n" not in line
        assert line.count(b"\t") == 1


@pytest.mark.parametrize("protocol", [*NOT_ALWAYS_TAB, Subclassed, OwnCodec])
def test_no_tab_is_promised_where_a_value_can_prevent_it(protocol: Any) -> None:
    assert not always_has_tab(protocol().write)


def test_a_repr_can_hold_a_newline() -> None:
    class Matrix:
        def __repr__(self) -> str:
            return "1 2\n3 4"

    assert b"\n" in ReprProtocol().write(Matrix(), 1)


def test_only_the_very_functions_of_mrjob_are_recognised() -> None:
    assert writer_kind(StandardJSONProtocol().write) == "json"
    assert writer_kind(StandardJSONValueProtocol().write) == "json_value"
    assert writer_kind(TextValueProtocol().write) == "text_value"
    shadowed = StandardJSONProtocol()
    shadowed._dumps = lambda value: b"x"
    others = [
        Subclassed().write,
        OwnCodec().write,
        PickleProtocol().write,
        shadowed.write,
        StandardJSONProtocol().read,
        lambda key, value: b"",
    ]
    assert [writer_kind(write) for write in others] == ["other"] * len(others)
    assert line_writer(shadowed.write)(1, 2) == b"x\tx"
    assert line_writer(OwnCodec().write)(1, 2) == b"own 1\town 2"


@relaxed
@given(raw=json_bytes | st.binary(max_size=12))
@example(raw=b'"\xed\xa0\x80"')
@example(raw=b"1\xff")
@example(raw=b"\xef\xbb\xbf1")
@example(raw='"é"'.encode("utf_16"))
def test_one_encoded_value_is_decoded_as_the_protocol_does(raw: bytes) -> None:
    loads = loads_for(StandardJSONProtocol().read)
    assert loads is not None
    assert same(outcome(loads, raw), outcome(StandardJSONProtocol()._loads, raw))


@pytest.mark.parametrize("protocol", [PickleProtocol, ReprProtocol])
@relaxed
@given(
    value=st.recursive(
        st.none() | st.integers() | st.text() | st.binary(), lambda v: st.lists(v) | st.tuples(v, v)
    )
)
def test_protocols_that_split_at_the_first_tab_offer_their_decoder(protocol: Any, value: Any) -> None:
    loads = loads_for(protocol().read)
    assert loads is not None
    line = protocol().write(value, value)
    assert [loads(part) for part in line.split(b"\t", 1)] == [value, value]


def test_a_decoder_is_offered_only_where_mrjob_splits_the_line() -> None:
    assert loads_for(OwnCodec().read)(b"1") == ("own", 1)  # type: ignore[misc]
    assert loads_for(Subclassed().read)(b"1") == 1  # type: ignore[misc]
    for read in (OwnSplit().read, TextProtocol().read, StandardJSONValueProtocol().read, lambda line: (1, 2)):
        assert loads_for(read) is None


@relaxed
@given(value=scalars)
def test_round_trip_types_survive_a_round_trip(value: Any) -> None:
    assert type(value) in ROUND_TRIP_TYPES
    if isinstance(value, str) and len(
        value.encode("utf_16_le", "surrogatepass").decode("utf_16_le", "replace")
    ) != len(value):
        return  # a character spelt as two surrogates, which the documentation excepts
    assert same(json_loads(json_dumps(value)), value)


@pytest.mark.parametrize("value", [Colour.RED, Number(1), Word("a"), (1, 2), b"a"])
def test_types_that_change_on_a_round_trip_are_not_listed(value: Any) -> None:
    assert type(value) not in ROUND_TRIP_TYPES


def test_the_fast_writers_do_not_stand_for_another_json_library() -> None:
    expected = "json" if mrjob.protocol.JSONProtocol is StandardJSONProtocol else "other"
    assert writer_kind(mrjob.protocol.JSONProtocol().write) == expected


def test_pickled_lines_survive_the_reader() -> None:
    line = PickleProtocol().write("k\t\n", pickle.dumps({"a": "\n"}))
    assert list(block_decoder(PickleProtocol().read)(line + b"\n").pairs) == [
        ("k\t\n", pickle.dumps({"a": "\n"}))
    ]
