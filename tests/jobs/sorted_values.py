"""SORT_VALUES: a reducer sees its values in the order of their bytes."""

from mrjob.job import MRJob


class Job(MRJob):
    SORT_VALUES = True

    def mapper(self, _, line):
        for position, word in enumerate(line.split()):
            yield word[:1], [position % 13, word]

    def reducer(self, initial, values):
        yield initial, list(values)


if __name__ == "__main__":
    Job.run()
