"""Teaches stock mrjob the runner `-r zeromq`, when and if a process imports mrjob.

`zmqmr.pth` calls `at_start` in every Python process of the environment, so this module imports nothing but
`sys` and does no work until mrjob is imported. mrjob has no entry point for runners: its list of names and
its look-up are changed in place, just after the modules that hold them have been executed.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

ALIAS = "zeromq"


def at_start() -> None:
    """Called by `zmqmr.pth` or `zmqmr.start`: `install`, unless ZMQMR_NO_HOOK is set (to anything but 0)."""
    import os  # imported by every Python before it reads a .pth file

    if os.environ.get("ZMQMR_NO_HOOK", "0") in ("", "0"):
        install()


def install() -> None:
    """Make `-r zeromq` known to mrjob, imported already or yet to be; calling it again changes nothing."""
    for name, patch in _PATCHES.items():
        if name in sys.modules:
            patch(sys.modules[name])
    if not installed():
        sys.meta_path.insert(0, _Finder())


def installed() -> bool:
    """Whether `install` has been called in this process."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def _patch_options(module: "ModuleType") -> None:
    from zmqmr.client.options import runner_options

    module._RUNNER_ALIASES.add(ALIAS)
    module._RUNNER_OPTS.update(runner_options())


def _patch_lookup(module: "ModuleType") -> None:
    """For each module that holds the name: mrjob.job binds it when it is imported."""
    original = module._runner_class
    if getattr(original, "knows_zeromq", False):
        return

    def _runner_class(alias: str) -> "Any":
        if alias == ALIAS:
            from zmqmr.client.runner import ZeroMQMRJobRunner

            return ZeroMQMRJobRunner
        return original(alias)

    _runner_class.knows_zeromq = True  # type: ignore[attr-defined]
    module._runner_class = _runner_class  # type: ignore[attr-defined]


_PATCHES = {
    "mrjob.options": _patch_options,
    "mrjob.runner": _patch_lookup,
    "mrjob.job": _patch_lookup,
}


class _Finder:
    """Finds mrjob's modules by asking the other finders, and wraps the loader that they give."""

    def __init__(self) -> None:
        self._busy: set[str] = set()  # another finder may ask all finders in turn, this one included

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name not in _PATCHES or name in self._busy:
            return None
        self._busy.add(name)
        try:
            for finder in sys.meta_path:
                find_spec = getattr(finder, "find_spec", None)
                spec = find_spec(name, path, target) if find_spec and finder is not self else None
                if spec is not None:
                    if spec.loader is not None:
                        spec.loader = _Loader(spec.loader, _PATCHES[name])
                    return spec
            return None
        finally:
            self._busy.discard(name)


class _Loader:
    """One module's loader, followed by its patch.

    An object for each module: the loader itself must stay as it is, because zipimport shares one among all
    the modules of an archive, and mrjob's tasks import mrjob from an archive.
    """

    def __init__(self, loader: "Any", patch: "Any") -> None:
        self._loader = loader
        self._patch = patch

    def create_module(self, spec: "Any") -> "Any":
        return self._loader.create_module(spec)

    def exec_module(self, module: "Any") -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._patch(module)
