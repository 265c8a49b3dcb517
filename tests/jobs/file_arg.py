"""add_file_arg, add_passthru_arg and their values in a task."""

from mrjob.job import MRJob


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_file_arg("--stop-list", required=True)
        self.add_passthru_arg("--times", type=int, default=1)
        self.add_passthru_arg("--loud", action="store_true")
        self.add_passthru_arg("--mark", default="")

    def load_args(self, args):
        super().load_args(args)
        self.factor = self.options.times * 10

    def mapper_init(self):
        with open(self.options.stop_list) as file:
            self.stop = set(file.read().split())

    def mapper(self, _, line):
        for word in line.split():
            if word not in self.stop:
                yield (word.upper() if self.options.loud else word), self.factor

    def reducer(self, word, counts):
        yield [word, self.options.mark], sum(counts)


if __name__ == "__main__":
    Job.run()
