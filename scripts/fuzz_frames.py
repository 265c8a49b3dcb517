"""Hostile frames from a seed: messages of every type, sound to the schema but not to sense, and damaged."""

import random
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, get_args

import msgspec
from msgspec import inspect

from zmqmr import messages
from zmqmr.net.frames import FrameHeader, pack

UNIONS = [messages.FromAgent, messages.FromClient, messages.ToAgent, messages.ToClient]
TYPES = [kind for union in UNIONS for kind in get_args(union)]
_info = cache(inspect.type_info)
BIG = [0, 1, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1]
TEXTS = [
    "",
    "..",
    "a\x00b",
    "\x1b[2J",
    "<script>",
    "a\nb",
    "$(id)",
    "x" * 300,
    "\u2028\ud7ff",
    "../../etc/passwd",
]
NAMES = [
    "local",
    "evil",
    "job",
    "map-0-00000",
    "reduce-1-00003",
    "map-9-99999",
    "a" * 200,
    "-rf",
    "a:b",
    "0123456789abcdef" * 4,  # of a bundle
    "output/part-00000",
    "0",  # a step
    "7",
]
NOT_NAMES = [".", "..", "job\n", "", "a/b", "/etc"]


class Mutator:
    """Draws frames. `job` is the name of the job that runs meanwhile."""

    def __init__(self, seed: int, job: str = "job"):
        self.random = random.Random(seed)
        self.job = job
        self._damages: list[Callable[[bytes], bytes]] = [  # `bytes` changes nothing
            self._flip,
            self._cut,
            self._grow,
            self._splice,
            self._nest,
            self._retype,
            self._retype,
            self._retype,
            bytes,
            bytes,
            bytes,
        ]

    # --- sound to the schema -----------------------------------------------------------------

    def message(self, kind: Any = None) -> Any:
        """A message of a type, any type, whose fields have any values that the schema allows."""
        return self._value(_info(kind or self.random.choice(TYPES)))

    def _value(self, info: Any, depth: int = 0) -> Any:
        draw = self.random
        few = draw.randrange(3 if depth < 4 else 1)
        match info:
            case inspect.StructType():
                fields = [field for field in info.fields if field.required or draw.random() < 0.7]
                return info.cls(**{field.name: self._value(field.type, depth + 1) for field in fields})
            case inspect.UnionType():
                return self._value(draw.choice(info.types), depth)
            case inspect.StrType():
                return self._text(info)
            case inspect.IntType():
                low = info.ge if info.ge is not None else -(2**63)
                high = info.le if info.le is not None else 2**64 - 1
                return draw.choice([low, high, *(number for number in (*BIG, 7) if low <= number <= high)])
            case inspect.FloatType():
                low = info.ge if info.ge is not None else -sys.float_info.max
                high = info.le if info.le is not None else sys.float_info.max
                odd = [float("inf"), float("nan")] if info.le is None else []
                return draw.choice([low, high, 0.0, 0.001, *odd])
            case inspect.BoolType():
                return draw.random() < 0.5
            case inspect.BytesType():
                return draw.randbytes(draw.randrange(40))
            case inspect.LiteralType():
                return draw.choice(info.values)
            case inspect.NoneType():
                return None
            case inspect.VarTupleType() | inspect.ListType():
                least = info.min_length or 0
                return tuple(self._value(info.item_type, depth + 1) for _ in range(max(few, least)))
            case inspect.TupleType():
                return tuple(self._value(each, depth + 1) for each in info.item_types)
            case inspect.DictType():
                return {
                    self._value(info.key_type, depth + 1): self._value(info.value_type, depth + 1)
                    for _ in range(few)
                }
        raise TypeError(f"no values are drawn for {info}")

    def _text(self, info: inspect.StrType) -> str:
        if info.pattern is None:
            most = info.max_length or sys.maxsize
            return self.random.choice([text for text in TEXTS if len(text) <= most])
        fitting = [text for text in (*NAMES, self.job) if re.search(info.pattern, text)]
        return self.random.choice(fitting)

    # --- damage ------------------------------------------------------------------------------

    def frame(self) -> bytes:
        """One part of a message to a control socket."""
        draw = self.random
        if draw.random() < 0.05:
            return draw.randbytes(draw.choice([0, 1, 7, 100, 5000]))
        return draw.choice(self._damages)(messages.encode(self.message()))

    def parts(self) -> list[bytes]:
        """All parts of a message to a control socket: one, as it should be, or another number."""
        if self.random.random() < 0.95:
            return [self.frame()]
        return [self.random.choice([b"", self.frame()]) for _ in range(self.random.choice([2, 3, 40]))]

    def shuffle_parts(self) -> list[bytes]:
        """A frame of records, damaged or of nobody's."""
        draw = self.random
        payload = draw.randbytes(draw.choice([0, 1, 50, 50, 50, 3000]))
        header, payload = pack(
            draw.choice([self.job, "job"]),
            draw.choice(BIG[:5]),
            draw.choice(NAMES),
            draw.choice([1, 2, *BIG[:4]]),
            draw.choice([1, *BIG]),
            draw.choice(BIG[:4]),
            draw.choice(BIG[:3]),
            payload,
        )
        if draw.random() < 0.3:
            header = messages.encode(self._value(_info(FrameHeader)))
        shapes = [[header, payload], [header], [payload], [header, payload, payload], [b""], [b"", b""], []]
        damaged = [draw.choice(self._damages)(header), payload]
        return draw.choice([damaged, damaged, [header, self._flip(payload)], *shapes]) or [b"", header]

    def _flip(self, frame: bytes) -> bytes:
        data = bytearray(frame)
        for _ in range(self.random.choice([1, 1, 2, 8])):
            if data:
                data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return bytes(data)

    def _cut(self, frame: bytes) -> bytes:
        return frame[: self.random.randrange(len(frame) + 1)]

    def _grow(self, frame: bytes) -> bytes:
        size = self.random.choices([1, 100, 100_000, 5_000_000], [50, 50, 2, 0.01])[0]
        return frame + bytes([self.random.randrange(256)]) * size

    def _splice(self, frame: bytes) -> bytes:
        other = messages.encode(self.message())
        return frame[: self.random.randrange(len(frame) + 1)] + other[self.random.randrange(len(other) + 1) :]

    def _nest(self, frame: bytes) -> bytes:
        opener = self.random.choice([b"\x91", b"\x81\xa1k", b"\x81\xa4type\x91", b"\xdd\xff\xff\xff\xff"])
        return opener * self.random.choice([1, 10, 1000, 20_000]) + frame

    def _retype(self, frame: bytes) -> bytes:
        """The same message with a field of another type, missing, doubled or out of all bounds."""
        try:
            tree = msgspec.msgpack.decode(frame)
        except (ValueError, RecursionError):
            return frame
        if isinstance(tree, dict | list) and tree:
            self._change(tree)
        return msgspec.msgpack.encode(tree)

    def _change(self, tree: Any) -> None:
        draw = self.random
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        key = draw.choice(keys)
        if isinstance(tree[key], dict | list) and tree[key] and draw.random() < 0.7:
            self._change(tree[key])
        elif isinstance(tree, dict) and draw.random() < 0.2:
            del tree[key]
        elif isinstance(tree, dict) and draw.random() < 0.2:
            tree[draw.choice(TEXTS)] = 1
        else:
            tree[key] = self._other()

    def _other(self) -> Any:
        draw = self.random
        return draw.choice(
            [None, True, -1, 2**64 - 1, -(2**63), 1.5, float("nan"), b"\xff\xfe", "", draw.choice(TEXTS)]
            if draw.random() < 0.6
            else [
                [[[[]]]],
                {"": {"": 0}},
                draw.choice([*NAMES, *NOT_NAMES]),
                self.job,
                list(range(50)),
                [None] * 2,
            ]
        )


# --- below ZeroMQ ----------------------------------------------------------------------------

_GREETING = b"\xff" + b"\0" * 8 + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" * 32
_READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"


def raw_bytes(draw: random.Random) -> bytes:
    """What a stranger, a browser or a broken library sends down a connection."""
    tail = draw.randbytes(draw.choice([0, 1, 100, 10_000]))
    return draw.choice(
        [
            tail,
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + tail,
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + tail,
            _GREETING[: draw.randrange(len(_GREETING))],
            _GREETING + tail,
            _GREETING + _READY[: draw.randrange(len(_READY))] + tail,
            _GREETING + _READY + tail,
            _GREETING + _READY + b"\x02" + (2**63 - 1).to_bytes(8, "big") + tail,
            _GREETING + _READY + b"\x00\xff" + tail,
            _GREETING + _READY + b"\x03" * 1000,
            _GREETING.replace(b"NULL", draw.choice([b"CURV", b"PLAI", b"\xff\xff\xff\xff"])) + tail,
        ]
    )
