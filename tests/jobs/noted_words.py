"""Counts words, slowly if asked to, says in a folder what it does, and can misbehave at a marked word.

With mrjob's own runners the switches change nothing: there is no attempt number to act upon.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

from mrjob.job import MRJob


def exit_0():
    os._exit(0)


def segfault():
    ctypes.string_at(0)


def sys_exit():
    sys.exit(0)


def abort():
    os.abort()


def exception():
    raise ValueError("this record is bad")


def hang():
    """Loops for ever, deaf to TERM, with a grandchild in a session of its own."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    while True:
        pass


def kill_agent():
    """Kills its grandparent: the agent, which started the executor."""
    with open(f"/proc/{os.getppid()}/stat") as file:
        os.kill(int(file.read().rpartition(")")[2].split()[1]), signal.SIGKILL)
    time.sleep(1000)


def flood():
    line = b"noise " * 170 + b"\n"
    for _ in range(64):
        os.write(2, line * 500)


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--pause", type=float, default=0.0, help="seconds for each record or key")
        self.add_passthru_arg("--where", default="mapper", help="the substep that is slow or misbehaves")
        self.add_passthru_arg("--gate", default="", help="a file for which mappers and reducers wait")
        self.add_passthru_arg("--tell", default="", help="a folder where executions are noted")
        self.add_passthru_arg("--how", default="", help="what to do at the word 'bad'")
        self.add_passthru_arg("--times", type=int, default=1, help="attempts of a task that misbehave")

    def note(self, what):
        """One line for each execution: what, task, attempt, process."""
        attempt_id = os.environ.get("mapreduce_task_attempt_id", "")
        if self.options.tell and attempt_id:
            text = f"{what} {attempt_id} {os.getpid()}\n"
            with open(os.path.join(self.options.tell, "executions"), "a") as file:
                file.write(text)

    def meet(self, where, word):
        if where != self.options.where:
            return
        if self.options.pause:
            time.sleep(self.options.pause)
        attempt_id = os.environ.get("mapreduce_task_attempt_id", "")
        if word == "bad" and self.options.how and int(attempt_id.rpartition("_")[2]) < self.options.times:
            globals()[self.options.how]()

    def mapper_init(self):
        self.note("mapper")

    def mapper(self, _, line):
        words = line.split()
        self.meet("mapper", words[0] if words else "")
        for word in words:
            self.increment_counter("words", word[:1])
            yield word, 1

    def mapper_final(self):
        self.wait_at_gate()

    def wait_at_gate(self):
        while self.options.gate and "mapreduce_task_attempt_id" in os.environ:
            if os.path.exists(self.options.gate):
                break
            time.sleep(0.1)

    def reducer_init(self):
        self.note("reducer")
        self.wait_at_gate()

    def reducer(self, word, counts):
        self.meet("reducer", word)
        yield word, sum(counts)


if __name__ == "__main__":
    Job.run()
