"""The lines, put under their keys and emitted again: sorts the input."""

from mrjob.job import MRJob


class IdentitySort(MRJob):
    def mapper(self, _, line):
        key, rest = line.split(" ", 1)
        yield key, rest

    def reducer(self, key, rests):
        for rest in rests:
            yield key, rest


if __name__ == "__main__":
    IdentitySort.run()
