"""How tests are spread over processes, when there are several."""

from pathlib import PurePath

from xdist.scheduler import LoadScopeScheduling

WHOLE_CLUSTERS = "cluster"  # the folder whose tests follow each other, in one cluster


class FileByFile(LoadScopeScheduling):
    """The tests of a file run in one process, in their order; those of whole clusters all in one.

    The plugin's own way, marks that name a group, works no longer with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = PurePath(nodeid.partition("::")[0])
        return WHOLE_CLUSTERS if path.parent.name == WHOLE_CLUSTERS else str(path)
