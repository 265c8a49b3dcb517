"""How tests are spread over processes, when there are several."""

import re
from pathlib import PurePath

from xdist.scheduler import LoadScopeScheduling

_DAY = re.compile(r"cluster/test_([a-z]*)_?\d_\w+\.py$")


def story(path: PurePath) -> str | None:
    """The name of the cluster in which a file's tests follow those of other files, as their numbers say; None
    when they stand for themselves."""
    found = _DAY.search(path.as_posix())
    return f"cluster {found[1]}" if found else None


class FileByFile(LoadScopeScheduling):
    """The tests of a file run in one process, in their order; those of one cluster all in one.

    The plugin's own way, marks that name a group, works no longer with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = PurePath(nodeid.partition("::")[0])
        return story(path) or str(path)
