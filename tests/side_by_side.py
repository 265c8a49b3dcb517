"""How tests are spread over processes, when there are several."""

import re
from pathlib import PurePath

from xdist.scheduler import LoadScopeScheduling

_DAY = re.compile(r"cluster/test_\d_\w+\.py$")


def follows(path: PurePath) -> bool:
    """Whether a file is one of those whose tests follow each other, as their numbers say, in one cluster."""
    return _DAY.search(path.as_posix()) is not None


class FileByFile(LoadScopeScheduling):
    """The tests of a file run in one process, in their order; those of the one cluster all in one.

    The plugin's own way, marks that name a group, works no longer with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = PurePath(nodeid.partition("::")[0])
        return "the one cluster" if follows(path) else str(path)
