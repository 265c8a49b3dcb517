"""Counts words and does, in every substep, what --what names, beside its work."""

import contextlib
import ctypes
import io
import multiprocessing
import os
import signal
import sys
import threading

from mrjob.job import MRJob


def stray_print():
    print("stray", "text")
    print("a key\t1")


def fd_1():
    os.write(1, b'"written to fd 1"\t1\n')


def c_code():
    libc = ctypes.CDLL(None)
    libc.puts(b'"written by C"\t1')
    libc.fflush(None)


def new_file_on_fd_1():
    os.fdopen(os.dup(1), "w").write("through another file\n")


def fork_and_exit():
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def fork_and_sys_exit():
    if os.fork() == 0:
        sys.exit()
    os.wait()


def fork_and_raise():
    if os.fork() == 0:
        raise ValueError("only in a child")
    os.wait()


def fork_and_forget():
    if os.fork() == 0:
        signal.pause()
        os._exit(0)


def _square(number):
    return number * number


def pool():
    with multiprocessing.Pool(2) as workers:
        assert workers.map(_square, range(10)) == [n * n for n in range(10)]


def threads():
    for _ in range(3):
        threading.Thread(target=print, args=("from a thread",)).start()
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def close_stdin():
    sys.stdin.close()


def close_fd_0():
    with contextlib.suppress(OSError):  # closed already
        os.close(0)


def change_directory():
    os.chdir("/")


def change_environment():
    for name in list(os.environ):
        if name.startswith(("mapreduce", "mapred", "ZMQMR", "PATH", "TMP", "HOME")):
            del os.environ[name]
    os.environ["LC_ALL"] = "nonsense"


def signal_handlers():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)


def recursion_limit():
    sys.setrecursionlimit(60 + len(_frames()))


def _frames():
    frames = []
    frame = sys._getframe()
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def replace_streams():
    sys.stdout = sys.stderr = io.StringIO()


def close_streams():
    sys.stdout.close()
    sys.stderr.close()


def flood_stderr():
    for _ in range(25):
        os.write(2, b"x" * 1023 + b"\n")
    line = b"reporter:nothing of ours\n" * 40_000
    for _ in range(34):
        os.write(2, line)


def endless_line_on_stderr():
    for _ in range(100):
        os.write(2, b"y" * 100_000)


def own_process_group():
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--what", required=True)

    def misbehave_once(self):
        if not getattr(self, "done", False):
            self.done = True
            globals()[self.options.what]()

    def mapper(self, _, line):
        self.misbehave_once()
        for word in line.split():
            yield word, 1

    def combiner(self, word, counts):
        self.misbehave_once()
        yield word, sum(counts)

    def reducer(self, word, counts):
        self.misbehave_once()
        yield word, sum(counts)


if __name__ == "__main__":
    Job.run()
