"""What is wrong with an mrjob.conf, in one line: mrjob raises whatever reading and parsing it raises."""

import contextlib
import traceback
from collections.abc import Iterator

from zmqmr.errors import UsageError

_ADVICE = "repair it, give -c another one, or say --no-conf"


@contextlib.contextmanager
def conf_files_explained() -> Iterator[None]:
    """Turns errors inside that come from a configuration file into UsageError, which names it and where."""
    try:
        yield
    except Exception as error:
        path = _read_when(error)
        if path is None or isinstance(error, UsageError):
            raise
        raise UsageError(_message(error, path)) from error


def _read_when(error: BaseException) -> str | None:
    """The configuration file that mrjob was reading when the error was raised, None when it was not."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__") == "mrjob.conf":
            found = frame.f_locals.get("conf_path") or found
    return found


def _message(error: Exception, path: str) -> str:
    if isinstance(error, OSError):
        return f"cannot read the configuration file {path}: {error.strerror}; {_ADVICE}"
    mark = getattr(error, "problem_mark", None)  # PyYAML's; JSON's errors say line and column themselves
    if mark is not None:
        place = f"line {mark.line + 1}, column {mark.column + 1}"
        return f"the configuration file {path} is no YAML: {place}: {error.problem}; {_ADVICE}"  # type: ignore[attr-defined]
    if isinstance(error, AttributeError):
        return f"the configuration file {path} does not begin with runners: and options below it; {_ADVICE}"
    return f"the configuration file {path} cannot be used: {error}; {_ADVICE}"
