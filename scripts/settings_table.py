"""Print README's table of settings from zmqmr/settings.py; with --write, put it into README.md.

A test keeps the two equal.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIELD = re.compile(r"^    (\w+): (\w+) = (.+?)  # (.+)$")
MARKED = re.compile(r"(<!-- settings -->\n).*?(<!-- /settings -->)", re.DOTALL)


def _size(default: str) -> str:
    """A default of the source as a user may give it."""
    for source, unit in (("* 1024 * MIB", "GiB"), ("* MIB", "MiB"), ("* 1024", "KiB")):
        default = default.replace(source, unit)
    return default.replace("_", "").strip('"')


def table() -> str:
    """The settings as a Markdown table, one row a field, in the order of the source."""
    rows = ["| variable | default | what |", "|---|---|---|"]
    for line in (ROOT / "zmqmr" / "settings.py").read_text().splitlines():
        if match := FIELD.match(line):
            name, _, default, what = match.groups()
            rows.append(f"| `ZMQMR_{name.upper()}` | {_size(default)} | {what} |")
    return "\n".join(rows) + "\n"


def with_table(readme: str) -> str:
    """README's text with the table put in."""
    return MARKED.sub(lambda match: match[1] + table() + match[2], readme)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        path = ROOT / "README.md"
        path.write_text(with_table(path.read_text()))
    else:
        print(table(), end="")
