"""A task that says in a file of the folder --tell that it runs, and then waits for ever."""

import os
import signal

from mrjob.job import MRJob


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--tell", required=True)
        self.add_passthru_arg("--where", default="mapper")

    def wait(self, where):
        if where == self.options.where:
            with open(os.path.join(self.options.tell, str(os.getpid())), "w"):
                pass
            while True:
                signal.pause()

    def mapper(self, _, line):
        self.wait("mapper")
        yield line, 1

    def reducer(self, line, ones):
        self.wait("reducer")
        yield line, sum(ones)


if __name__ == "__main__":
    Job.run()
