"""Going on without the terminal: a copy of this process, in a session of its own, runs the job.

The copy is an ordinary client in every other respect: the coordinator and the agent are its children.
"""

import os
import sys
from collections.abc import Callable

from zmqmr.errors import CoordinatorUnreachable, UsageError

Begun = Callable[[], None]
_WORDS = 10_000  # bytes of an error that the copy may hand over


def in_background(work: Callable[[Begun], None], stderr: str) -> None:
    """Run `work` in the copy, which ends with it; returns here once work has called its argument.

    `stderr`: a file for what the copy says. UsageError when this process has more than one thread,
    CoordinatorUnreachable when the copy ends before it has begun.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise UsageError("--detach needs a process with a single thread; run the job with zmqmr-run")
    sys.stdout.flush()
    sys.stderr.flush()
    news, news_end = os.pipe()
    child = os.fork()
    if not child:
        if os.fork():
            os._exit(0)  # so that the copy is nobody's child, and nobody has to wait for its end
        os.close(news)
        _go_on(work, news_end, stderr)
    os.close(news_end)
    os.waitpid(child, 0)
    said = os.read(news, _WORDS).decode(errors="replace")  # no more: the copy's children have the pipe too
    os.close(news)
    if said != "begun":
        raise CoordinatorUnreachable(said or "the process that was to follow the job ended; run it again")


def _go_on(work: Callable[[Begun], None], news: int, stderr: str) -> None:
    code = 1
    open_news = [news]

    def tell(what: str) -> None:
        while open_news:
            os.write(news, what.encode()[:_WORDS])
            os.close(open_news.pop())

    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        said = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor, target in ((nothing, 0), (nothing, 1), (said, 2)):
            os.dup2(descriptor, target)
        os.close(nothing)
        os.close(said)
        work(lambda: tell("begun"))
        code = 0
    except BaseException as error:
        tell(str(error) or repr(error))
    finally:
        os._exit(code)
