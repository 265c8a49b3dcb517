"""Where in the job's code an attempt was when it was told to end: its stack, in a file that outlives it."""

import faulthandler
import os
import re
import signal
import traceback

_NAME = "stack"  # in an attempt's directory
_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')
_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_FIRST = (os.path.join(_HERE, "worker", "attempt.py"), "run_attempt")
_FRAMES = 30  # shown, the innermost


def note_on_term(directory: str) -> None:
    """From now on TERM has this process write its stack into an attempt's directory before it ends.

    It is written without Python's help, so also while code in C runs. A job that handles TERM itself turns it
    off. What the job forks does not write: the stack would not be the attempt's.
    """
    descriptor = os.open(os.path.join(directory, _NAME), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    faulthandler.register(signal.SIGTERM, file=descriptor, all_threads=True, chain=True)
    os.register_at_fork(after_in_child=lambda: faulthandler.unregister(signal.SIGTERM))


def read_stack(directory: str, job_work: str) -> str:
    """The main thread's stack from the job's first frame on, as a traceback; "" when there is none.

    Files of `job_work`, a copy that goes with the job, are named as the user knows them."""
    try:
        with open(os.path.join(directory, _NAME), encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return ""
    _, _, main = text.rpartition("(most recent call first):\n")  # threads come the newest first
    frames = [(path, int(line), name) for path, line, name in _FRAME.findall(main)]
    frames.reverse()
    shown = _own_frames(frames)[-_FRAMES:]
    if not shown:
        return ""
    lines = traceback.StackSummary.from_list([(*frame, None) for frame in shown]).format()
    stack = "".join(lines).replace(job_work + os.sep, "")
    return f"Killed while it was here (most recent call last):\n{stack}"


def _own_frames(frames: list[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
    """What the attempt had called: from the first frame that is not ours, or all, where all are ours."""
    begun = [number for number, (path, _, name) in enumerate(frames) if (path, name) == _FIRST]
    frames = frames[begun[-1] + 1 :] if begun else frames
    others = [number for number, (path, _, _) in enumerate(frames) if not path.startswith(_HERE)]
    return frames[others[0] :] if others else frames
