"""Hands --runner to its tasks and says what they got."""

from mrjob.job import MRJob


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.pass_arg_through("--runner")

    def mapper(self, _, line):
        yield self.options.runner, 1

    def reducer(self, runner, ones):
        yield runner, sum(ones)


if __name__ == "__main__":
    Job.run()
