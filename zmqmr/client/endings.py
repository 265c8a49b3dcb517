"""How errors reach the user: as one line and an exit status from a command, as an exception in a program.

mrjob's run_job catches failed steps only; anything else that a runner raises would end a job file with a
traceback of mrjob. So where run_job drives the runner, errors are said here and become SystemExit. A program
that calls make_runner() and run() itself gets the exception.
"""

import contextlib
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import NoReturn

from mrjob.step import StepFailedException

from zmqmr.client.callers import driven_by_run_job
from zmqmr.client.texts import printable
from zmqmr.errors import EXIT_INTERRUPTED, EXIT_USAGE, InputError, OutOfDisk, ZmqmrError, is_full
from zmqmr.messages import Counters

log = logging.getLogger("mrjob.zeromq")

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came; cleans up like an interrupt from the keyboard."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class JobKilled(StepFailedException, ZmqmrError):
    """Somebody killed the job: no step of it failed."""

    exit_code = EXIT_INTERRUPTED

    def __init__(self, job: str, reason: str):
        super().__init__(reason)
        self._said = f"{job} was {reason if reason.startswith('killed') else f'killed: {reason}'}"

    def __str__(self) -> str:
        return self._said


class Left(KeyboardInterrupt):
    """Another interrupt came while the job was being killed: nobody waits for that any longer."""

    exit_code = EXIT_INTERRUPTED

    def __init__(self, job: str):
        super().__init__(f"interrupted again; {job} is being killed meanwhile")


@contextlib.contextmanager
def said_to_user(*, constructing: bool = False, job: Callable[[], str] = str) -> Iterator[None]:
    """Turns errors inside into one line and SystemExit, when run_job drives the runner.

    `constructing`: also mrjob's own errors about options and files, which have no class of their own.
    `job`: names the job that an interrupt has killed, "" when none had begun.
    """
    try:
        yield
    except ZmqmrError as error:
        if not driven_by_run_job():
            raise
        _end(str(error), error.exit_code)
    except KeyboardInterrupt as error:
        if not driven_by_run_job():
            raise
        interrupted = f"interrupted; {job()} was killed" if job() else "interrupted"
        said = str(error) if isinstance(error, Left) else interrupted
        _end(said, getattr(error, "exit_code", EXIT_INTERRUPTED))
    except (ValueError, TypeError, OSError) as error:
        if not constructing or not driven_by_run_job():
            raise
        log.debug("mrjob refuses the job's options", exc_info=True)
        _end(str(error), EXIT_USAGE)


@contextlib.contextmanager
def nothing_started() -> Iterator[None]:
    """An InputError inside counts as wrong usage: the job did not begin."""
    try:
        yield
    except InputError as error:
        error.exit_code = EXIT_USAGE
        raise


@contextlib.contextmanager
def temporary_files(find: Callable[[], str]) -> Iterator[None]:
    """A full drive inside is OutOfDisk that names the directory of the job's temporary files, which `find`
    finds."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        directory = find()
        reason = f"cannot write to {directory}: {error.strerror}; make room there, or set local_tmp_dir"
        raise OutOfDisk(reason, directory) from error


@contextlib.contextmanager
def signals_clean_up() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Terminated inside, unless the program handles them itself."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def output_announced(when: Callable[[], bool]) -> Iterator[None]:
    """Inside, mrjob says where the job's output is only `when` it is there."""
    logger = logging.getLogger("mrjob.runner")

    def wanted(record: logging.LogRecord) -> bool:
        return when() or not record.getMessage().startswith("job output is in")

    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)


def uninterrupted(function: Callable[[], object]) -> None:
    """Call `function`, which cleans up; INT, TERM and HUP that come meanwhile take effect after it."""
    came: list[int] = []
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, *_SIGNALS):
            if signal.getsignal(number) is not None:  # None: set by other than Python, cannot be put back
                previous[number] = signal.signal(number, lambda number, frame: came.append(number))
    try:
        function()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated(number)


def _end(message: str, exit_code: int) -> NoReturn:
    """Say `message`, even after --quiet when nothing was started, as a wrong switch is; then end."""
    message = printable(message)
    if is_shown(logging.ERROR):
        log.error("%s", message)
    elif exit_code == EXIT_USAGE:
        print(message, file=sys.stderr)
    raise SystemExit(exit_code)


def reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any longer, as after `| head`."""
    poll = select.poll()
    poll.register(1, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def quiet_when_nobody_reads() -> None:
    """From now on, a process that ends because nobody reads its standard output (`| head`) says nothing, as
    other programs do. It is mrjob's run_job that writes the output, so no `except` of ours would see that."""
    stock = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
        if issubclass(kind, BrokenPipeError) and reader_has_gone():
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python flushes at its end
        else:
            stock(kind, error, tb)

    sys.excepthook = hook


def log_counters(steps: Iterable[Counters]) -> None:
    """Say the counters of each step as mrjob does; what would steer a terminal is escaped."""
    from mrjob.logs.counters import _format_counters

    for counters in steps:
        if counters:
            log.info("\n%s\n", printable(_format_counters(counters)))


def is_shown(level: int) -> bool:
    """Whether messages of `level` go anywhere: not after --quiet, nor in a program without logging."""
    logger: logging.Logger | None = log
    if not log.isEnabledFor(level):
        return False
    while logger is not None:
        for handler in logger.handlers:
            # mrjob's --quiet adds a NullHandler of mrjob's own.
            if handler.level <= level and type(handler).__name__ != "NullHandler":
                return True
        logger = logger.parent if logger.propagate else None
    return False
