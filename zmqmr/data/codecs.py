"""Fast ways to read and write records that give exactly what mrjob's protocols give.

mrjob's own protocols cost several times what the job's mapper costs. A fast way here stands for one
function of one protocol class. It is taken only when the job uses that very function, unchanged;
everything else (a subclass, a changed method, a protocol of the job's own, another JSON library) goes
through the method that mrjob picked.

A fast way tries a quicker codec and, when that refuses the data for whatever reason, asks the original.
So values that only `json` takes (NaN, lone surrogates, subclasses) and all errors are the original's
own. The one difference: a JSON record nested to within a few levels of Python's recursion limit may be
read where `json.loads` gives up, which depends on how deep the caller's own stack is.
"""

import json
import json.encoder
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any, Final, Literal, NamedTuple, Protocol, cast

import mrjob.protocol
import msgspec
from mrjob.protocol import (
    BytesProtocol,
    BytesValueProtocol,
    PickleProtocol,
    StandardJSONProtocol,
    StandardJSONValueProtocol,
    TextProtocol,
    TextValueProtocol,
)

Read = Callable[[bytes], tuple[Any, Any]]
Write = Callable[[Any, Any], bytes]
Loads = Callable[[bytes], Any]

ROUND_TRIP_TYPES: Final = frozenset({str, int, float, bool, type(None)})
"""Exact types whose values JSON gives back equal and of the same type, if `json_dumps` takes them.

Two exceptions, which the reader of this set must accept or exclude: NaN equals nothing, itself included;
and a str that spells one character beyond U+FFFF as two surrogates comes back with that one character.
An int too long for Python's limit on digits is refused by `json_dumps` already.
Equal values of different types (1, 1.0, True) and 0.0 and -0.0 have different JSON."""

_INFINITY: Final = float("inf")
_UNDECODED: Final = object()

_dumps_stock = json.dumps
_loads_stock = json.loads
_escape = json.encoder.encode_basestring_ascii
_decode = msgspec.json.Decoder().decode

_KeyCachingProtocol = mrjob.protocol._KeyCachingProtocol
_METHODS: Final = ("read", "write", "_loads", "_dumps")
_ORIGINALS: Final[dict[type, dict[str, Any]]] = {
    cls: {name: getattr(cls, name) for name in _METHODS if hasattr(cls, name)}
    for cls in (
        BytesProtocol,
        BytesValueProtocol,
        PickleProtocol,
        StandardJSONProtocol,
        StandardJSONValueProtocol,
        TextProtocol,
        TextValueProtocol,
    )
}


class ListIterator(Protocol):
    """The iterator of a list, which knows how many items it has left."""

    def __iter__(self) -> Iterator[Any]: ...

    def __next__(self) -> Any: ...

    def __length_hint__(self) -> int:
        """The number of items not yet taken."""
        ...


class Lines(NamedTuple):
    """The records of one block: `pairs` to consume, `lines` to tell how far that got.

    `pairs` decodes a record when it is asked for it and raises what the protocol raises.
    `lines` is the list iterator below it: `lines.__length_hint__()` is the number of lines not yet taken,
    so a failing record is the last line taken.
    """

    pairs: Iterable[tuple[Any, Any]]
    lines: ListIterator


def block_decoder(read: Read) -> Callable[[bytes], Lines]:
    r"""Return a function that decodes blocks of whole lines as `read` would, line by line.

    A block is split at \n only; the last line may lack it. As in mrjob, all \r at the end of a line are
    dropped and an empty line is a record. Call the returned function from one thread at a time.
    """
    cls = _stock_class(read, "read")
    if cls is TextValueProtocol:
        return lambda block: _decode_text(block, read, lambda lines: zip(repeat(None), lines))
    if cls is TextProtocol:
        return lambda block: _decode_text(block, read, _split_text)
    if cls is BytesValueProtocol:
        return lambda block: _decode_lines(block, lambda lines: zip(repeat(None), lines))
    if cls is BytesProtocol:
        return lambda block: _decode_lines(block, _split_bytes)
    if cls is StandardJSONProtocol:
        protocol = read.__self__  # type: ignore[attr-defined]
        return lambda block: _decode_lines(block, lambda lines: _json_pairs(protocol, lines))
    if cls is StandardJSONValueProtocol:
        return lambda block: _decode_lines(block, lambda lines: _json_values(read, lines))
    return lambda block: _decode_lines(block, lambda lines: _call_read(read, lines))


def json_loads(text: str | bytes) -> Any:
    """Return what `json.loads(text)` returns or raise what it raises; bytes must be UTF-8."""
    try:
        return _decode(text)
    except Exception:
        pass  # json decides, outside of the handler, so that its error shows alone
    return json.loads(text if isinstance(text, str) else text.decode("utf_8"))


def json_dumps(value: Any) -> str:
    """Return what `json.dumps(value)` returns or raise what it raises."""
    kind = type(value)
    if kind is str:
        return _escape(value)
    if kind is int or (kind is float and -_INFINITY < value < _INFINITY):
        return repr(value)
    try:
        return "".join(_chunks(value, 0))
    except Exception:
        # The encoder leaves the containers it was inside of in `_markers`; they would count as
        # circular for ever after.
        _markers.clear()
    return json.dumps(value)


def writer_kind(write: Write) -> Literal["json", "json_value", "text_value", "other"]:
    """Tell which protocol's unchanged `write` this is, for callers that inline it."""
    cls = _stock_class(write, "write")
    if cls is StandardJSONProtocol:
        return "json"
    if cls is StandardJSONValueProtocol:
        return "json_value"
    if cls is TextValueProtocol:
        return "text_value"
    return "other"


def line_writer(write: Write) -> Write:
    """Return a function that gives the bytes that `write(key, value)` gives, a line without its newline."""
    kind = writer_kind(write)
    if kind == "json":
        return _write_json
    if kind == "json_value":
        return _write_json_value
    return write


def always_has_tab(write: Write) -> bool:
    """True if every line that `write` can give holds a TAB and no newline, whatever the values.

    False for ReprProtocol, since an object's repr may hold either, and for the protocols of ujson,
    rapidjson and simplejson: each lets an object supply JSON text, newlines included, that is written as is.
    """
    return _stock_class(write, "write") in (StandardJSONProtocol, PickleProtocol)


def loads_for(read: Read) -> Loads | None:
    """Return the function that decodes one encoded key or value, or None if there is none.

    There is one if `read` splits a line at its first TAB and decodes both halves alike, as the protocols
    of mrjob for a key and a value do, and subclasses that keep their `read`.
    """
    if getattr(read, "__func__", None) is not _KeyCachingProtocol.read:
        return None
    if _stock_class(read, "read") is StandardJSONProtocol:
        return json_loads
    loads: Loads = read.__self__._loads  # type: ignore[attr-defined]
    return loads


def _stock_class(method: Any, name: str) -> type | None:
    """The mrjob class whose `name` this bound method is, if neither class nor instance was altered."""
    owner = getattr(method, "__self__", None)
    cls = type(owner)
    originals = _ORIGINALS.get(cls)
    if originals is None or getattr(method, "__func__", None) is not originals[name]:
        return None
    if any(getattr(cls, key) is not value for key, value in originals.items()):
        return None
    if not originals.keys().isdisjoint(vars(owner)):
        return None
    if cls in (StandardJSONProtocol, StandardJSONValueProtocol) and not _json_is_stock():
        return None
    return cls


def _json_is_stock() -> bool:
    """False once a job has put functions of its own in the place of json's."""
    return mrjob.protocol.json is json and json.dumps is _dumps_stock and json.loads is _loads_stock


def _decode_lines(block: bytes, decode: Callable[[Iterator[bytes]], Iterable[tuple[Any, Any]]]) -> Lines:
    lines = block.split(b"\n")
    if not lines[-1]:  # the block is empty or ends with a newline
        lines.pop()
    if b"\r" in block:
        lines = [line.rstrip(b"\r") for line in lines]
    iterator = iter(lines)
    return Lines(decode(iterator), cast(ListIterator, iterator))


def _decode_text(
    block: bytes, read: Read, decode: Callable[[Iterator[str]], Iterable[tuple[Any, Any]]]
) -> Lines:
    try:
        text = block.decode("utf_8")
    except UnicodeDecodeError:  # some line is not UTF-8: `read` decides line by line
        return _decode_lines(block, lambda lines: _call_read(read, lines))
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if "\r" in text:
        lines = [line.rstrip("\r") for line in lines]
    iterator = iter(lines)
    return Lines(decode(iterator), cast(ListIterator, iterator))


def _call_read(read: Read, lines: Iterator[bytes]) -> Iterator[tuple[Any, Any]]:
    for line in lines:
        key, value = read(line)
        yield key, value


def _split_text(lines: Iterator[str]) -> Iterator[tuple[str, str | None]]:
    for line in lines:
        key, tab, value = line.partition("\t")
        yield key, value if tab else None


def _split_bytes(lines: Iterator[bytes]) -> Iterator[tuple[bytes, bytes | None]]:
    for line in lines:
        key, tab, value = line.partition(b"\t")
        yield key, value if tab else None


def _json_pairs(protocol: Any, lines: Iterator[bytes]) -> Iterator[tuple[Any, Any]]:
    """Read lines as `StandardJSONProtocol.read` does.

    Equal neighbouring keys give one object, across blocks too, so the cache is the protocol's own: a
    mapper that changes its key sees what it would see under mrjob.
    """
    decode = _decode
    last_raw, last = protocol._last_key_encoded, protocol._last_key_decoded
    try:
        for line in lines:
            raw_key, raw_value = line.split(b"\t", 1)
            try:
                if raw_key != last_raw:
                    last = decode(raw_key)
                    last_raw = raw_key
                value = decode(raw_value)
            except Exception:
                value = _UNDECODED
            if value is _UNDECODED:  # outside of the handler, so that an error shows alone
                if raw_key != last_raw:
                    last = protocol._loads(raw_key)
                    last_raw = raw_key
                value = protocol._loads(raw_value)
            yield last, value
    finally:
        protocol._last_key_encoded, protocol._last_key_decoded = last_raw, last


def _json_values(read: Read, lines: Iterator[bytes]) -> Iterator[tuple[None, Any]]:
    decode = _decode
    for line in lines:
        try:
            value = decode(line)
        except Exception:
            value = _UNDECODED
        if value is _UNDECODED:  # outside of the handler, so that an error shows alone
            value = read(line)[1]
        yield None, value


def _write_json(key: Any, value: Any) -> bytes:
    left = _escape(key) if type(key) is str else json_dumps(key)
    right = repr(value) if type(value) is int else json_dumps(value)
    return f"{left}\t{right}".encode()


def _write_json_value(key: Any, value: Any) -> bytes:
    return json_dumps(value).encode()


# The containers the encoder is inside of, by which it finds circular references; empty between calls.
_markers: dict[int, Any] = {}


def _make_chunks() -> Callable[[Any, int], Iterable[str]]:
    """The C encoder that `json.dumps` builds anew at every call, built once; else `json.dumps`."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the C part
        return lambda value, indent: (_dumps_stock(value),)
    stock = json.JSONEncoder()
    chunks: Callable[[Any, int], Iterable[str]] = make(
        _markers,
        stock.default,
        _escape,
        stock.indent,
        stock.key_separator,
        stock.item_separator,
        stock.sort_keys,
        stock.skipkeys,
        stock.allow_nan,
    )
    return chunks


_chunks = _make_chunks()
