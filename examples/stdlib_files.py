"""Print the paths of the source files of Python's own standard library, without its tests.

About 12 MB of text that is on every machine where the examples run:

    zmqmr-run examples/word_freq.py $(python examples/stdlib_files.py)
"""

import sysconfig
from pathlib import Path

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test"}


def stdlib_files() -> list[Path]:
    """The .py files of the running Python's standard library, sorted."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return sorted(path for path in root.rglob("*.py") if not SKIPPED & set(path.relative_to(root).parts))


if __name__ == "__main__":
    print(*stdlib_files(), sep="\n")
