"""A run of its own place: a temporary folder, a mark on its processes, and what it leaves of both."""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from differential.harness import plain_environ

PATIENCE_SECONDS = 30


class Place:
    """A temporary folder for one run, and an environment that marks all of the run's processes."""

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary
        self.marker = uuid.uuid4().hex

    def environ(self, **extra: str) -> dict[str, str]:
        """The environment to start the run with; `extra` wins."""
        return plain_environ({"TEST_MARKER": self.marker, "TMPDIR": str(self.temporary)} | extra)

    def processes(self) -> dict[int, str]:
        """The living processes of the run: their command lines by number."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"TEST_MARKER={self.marker}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # it has ended, or is not ours to look at
        return found

    def files(self) -> list[str]:
        """What lies in the temporary folder, without what a later job can use of one that did not succeed."""
        found = []
        for folder, folders, names in os.walk(self.temporary):
            path = Path(folder).relative_to(self.temporary)
            if len(path.parts) == 5 and path.parts[2] == "agent" and path.name == "spools":
                folders.clear()
            elif names or not folders:
                found += [str(path / name) for name in names] or [str(path)]
        return sorted(path for path in found if path != ".")

    def assert_nothing_left(self) -> None:
        """No process and no file of the run is there, or they go while we wait; see `files`."""
        wait_until(lambda: not self.processes() and not self.files(), self._story)

    def _story(self) -> str:
        return f"left: processes {self.processes()}, files {self.files()}"


def wait_until(condition: Callable[[], object], story: Callable[[], str] = str) -> None:
    """Wait until `condition` holds, at most PATIENCE_SECONDS; `story` says what is wrong if it does not."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, story()
        time.sleep(0.02)
