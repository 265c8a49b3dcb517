"""Lists and reads files of its working directory, named with --want."""

from mrjob.job import MRJob


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--want", action="append", default=[])

    def mapper_init(self):
        self.found = []
        for name in self.options.want:
            with open(name) as file:
                self.found.append([name, file.read()])

    def mapper(self, _, line):
        yield len(line), self.found

    def reducer(self, length, found):
        yield length, sorted(found)


if __name__ == "__main__":
    Job.run()
