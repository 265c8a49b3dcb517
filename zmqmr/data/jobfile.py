"""Job files: execute one as Python's main module, and find the job in it.

mrjob's contract is that a job file ends with `MyJob.run()` under `if __name__ == '__main__':`. A file is
therefore executed as the real `__main__` of its process: for good, so that pickled names and mrjob's look-up
of the script work. Call these functions once in a process, and in a process that is meant for the job.
"""

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from zmqmr.errors import JobFileError

_ADVICE = "call MyJob.run() under if __name__ == '__main__':"

# PYTHONSAFEPATH, from Python 3.11: the directory of what is run is not the first of sys.path.
SAFE_PATH = bool(getattr(sys.flags, "safe_path", False))


class _Stop(BaseException):
    """Ends a job file that is only being loaded; no `except Exception` of the file can hold it."""


class _Calls:
    """The job class on which the file asked for a run first, or None."""

    def __init__(self) -> None:
        self.job_class: Any = None

    def note(self, job_class: type) -> None:
        if self.job_class is None:
            self.job_class = job_class


def load_job_class(path: str, argv: Sequence[str] = (), name: str = "") -> Any:
    """The job class of a file, without running the job.

    With a qualified `name`, the class of that name, wherever the file stops. Otherwise:

    It is the class that the file calls `.run()` on (or makes a runner of); else the only MRJob subclass that
    the file itself defines. The file sees `sys.argv == [path, *argv]`. Raises JobFileError when the file
    cannot be executed, or holds no job, or several; its message has the traceback of the user's own frames.
    """
    calls = _Calls()

    def stop(job_class: type) -> None:
        calls.note(job_class)
        raise _Stop

    code = _compile(path)
    with _watched(stop):
        try:
            module = _execute(path, argv, code)
        except _Stop:
            return _named(path, name) if name else calls.job_class
        except SystemExit as error:
            raise JobFileError(
                f"{path} ended with exit status {error.code!r} before it ran a job; {_ADVICE}"
            ) from error
        except Exception as error:
            raise JobFileError(_explain(path, error)) from error
    return _named(path, name) if name else calls.job_class or _only_class(path, module)


def _named(path: str, name: str) -> Any:
    """The class of that qualified name in the executed file."""
    found: Any = sys.modules["__main__"]
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise JobFileError(
            f"{path} has no class {name} before it runs a job; define it at the top of the file"
        )
    return found


def run_job_file(path: str, argv: Sequence[str] = ()) -> None:
    """Do what `python path *argv` does; then, if the file asked for no run, run the only job that it defines.

    Raises JobFileError as `load_job_class` does, but only for what fails before the file asks for a run: from
    then on every exception, SystemExit included, is passed on as it is.
    """
    calls = _Calls()
    code = _compile(path)
    with _watched(calls.note):
        try:
            module = _execute(path, argv, code)
        except Exception as error:
            if calls.job_class is not None:
                raise
            raise JobFileError(_explain(path, error)) from error
    if calls.job_class is None:
        _only_class(path, module).run()


def import_mrjob() -> Any:
    """`mrjob.job.MRJob`, imported in about half the time.

    mrjob wants two small functions of distutils. Before Python 3.12 the standard library has them, but where
    setuptools is installed its import hook answers for distutils with the whole of setuptools. The hook is
    put aside meanwhile, and no distutils is left behind for a later import of setuptools to complain about.
    """
    if sys.version_info < (3, 12) and "distutils" not in sys.modules:
        hooks = [finder for finder in sys.meta_path if type(finder).__module__ == "_distutils_hack"]
        for finder in hooks:
            sys.meta_path.remove(finder)
        try:
            importlib.import_module("mrjob.job")
        finally:
            sys.meta_path[:0] = hooks
            for name in [name for name in sys.modules if name.partition(".")[0] == "distutils"]:
                del sys.modules[name]
    return importlib.import_module("mrjob.job").MRJob


def _compile(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            source = file.read()
        return compile(source, os.path.abspath(path), "exec", dont_inherit=True)
    except OSError as error:
        raise JobFileError(f"cannot read the job file {path}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise JobFileError(_explain(path, error)) from error


def _execute(path: str, argv: Sequence[str], code: Any) -> ModuleType:
    """Execute the file as `__main__`, set up as the interpreter would set it up."""
    module = ModuleType("__main__")
    module.__dict__.update(__file__=os.path.abspath(path), __cached__=None, __builtins__=__builtins__)
    sys.modules["__main__"] = module
    sys.argv = [path, *argv]
    if not SAFE_PATH:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    exec(code, module.__dict__)
    return module


@contextlib.contextmanager
def _watched(note: Callable[[type], None]) -> Iterator[None]:
    """Tell `note` of each class on which `run()` or `make_runner()` is called, before it happens."""
    MRJob = import_mrjob()
    run, make_runner = MRJob.__dict__["run"], MRJob.__dict__["make_runner"]

    def watched_run(cls: type) -> Any:
        note(cls)
        return run.__func__(cls)

    def watched_make_runner(self: Any) -> Any:
        note(type(self))
        return make_runner(self)

    MRJob.run, MRJob.make_runner = classmethod(watched_run), watched_make_runner
    try:
        yield
    finally:
        MRJob.run, MRJob.make_runner = run, make_runner


def _only_class(path: str, module: ModuleType) -> Any:
    MRJob = import_mrjob()
    found = {
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, MRJob) and value.__module__ == "__main__"
    }
    if len(found) == 1:
        return found.pop()
    if not found:
        raise JobFileError(f"{path} defines no subclass of mrjob.job.MRJob; define one and {_ADVICE}")
    names = ", ".join(sorted(job_class.__name__ for job_class in found))
    raise JobFileError(f"{path} defines {len(found)} jobs ({names}) and runs none of them; {_ADVICE}")


def _explain(path: str, error: BaseException) -> str:
    """The error with the user's own frames: from the job file's on, without those of the import machinery."""
    frames = traceback.extract_tb(error.__traceback__)
    filenames = [frame.filename for frame in frames]
    main = os.path.abspath(path)
    first = filenames.index(main) if main in filenames else len(frames)
    own = [frame for frame in frames[first:] if not frame.filename.startswith("<frozen importlib")]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(own)] if own else []
    lines += traceback.format_exception_only(error)
    return f"{path} cannot be executed:\n" + "".join(lines).rstrip()
