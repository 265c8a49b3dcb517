"""Text from jobs, files and hosts, made safe to print: it cannot steer a terminal or forge a log line."""

import re

from zmqmr.words import counted

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb]"
)


def printable(text: str) -> str:
    """`text` with what could steer a terminal escaped; newlines and tabs stay."""
    return _UNSAFE.sub(_escaped, text)


def one_line(text: str) -> str:
    """As `printable`, and newlines and tabs escaped too."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def cut(text: str, length: int) -> str:
    """`text`, or its start and "..." where it has more than `length` characters."""
    return text if len(text) <= length else text[: length - 3] + "..."


def size_words(count: float) -> str:
    """A number of bytes, for people."""
    units = iter(("bytes", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while count >= 1000 and unit != "TB":
        count /= 1000
        unit = next(units)
    return counted(round(count), "byte") if unit == "bytes" else f"{count:.1f} {unit}"
