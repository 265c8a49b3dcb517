"""Ends its task in the way that --how names, in the substep that --where names, at the word "bad"."""

import ctypes
import os
import signal
import sys

from mrjob.job import MRJob


def exception():
    raise ValueError("this record is bad")


def sys_exit():
    sys.exit("gave up on purpose")


def sys_exit_0():
    sys.exit(0)


def exit_0():
    os._exit(0)


def exit_3():
    os._exit(3)


def segfault():
    ctypes.string_at(0)


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def abort():
    os.abort()


def keyboard_interrupt():
    raise KeyboardInterrupt


def unprintable():
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError("no text for you")

    raise Odd


def no_memory():
    raise MemoryError


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--how", required=True)
        self.add_passthru_arg("--where", default="mapper")

    def end_badly(self, where, word):
        if where == self.options.where and word == "bad":
            globals()[self.options.how]()

    def mapper(self, _, line):
        for word in line.split():
            self.end_badly("mapper", word)
            yield word, 1

    def combiner(self, word, counts):
        self.end_badly("combiner", word)
        yield word, sum(counts)

    def reducer(self, word, counts):
        self.end_badly("reducer", word)
        yield word, sum(counts)


if __name__ == "__main__":
    Job.run()
