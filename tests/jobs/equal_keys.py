"""Keys that decode equal but are encoded differently: 1, 1.0 and true."""

from mrjob.job import MRJob
from mrjob.protocol import JSONProtocol


class Job(MRJob):
    INPUT_PROTOCOL = JSONProtocol

    def mapper(self, key, value):
        yield key, value

    def reducer(self, key, values):
        yield repr(key), sorted(values)


if __name__ == "__main__":
    Job.run()
