"""Each task has a working directory of its own that it may write to."""

from mrjob.job import MRJob


class Job(MRJob):
    def mark(self):
        with open("mark", "x") as file:
            file.write("mine")

    mapper_init = mark
    reducer_init = mark

    def mapper(self, _, line):
        with open("mark") as file:
            yield line[:1], file.read()

    def reducer(self, key, values):
        yield key, sorted(set(values))


if __name__ == "__main__":
    Job.run()
