"""NLineInputFormat: at most `linespermap` lines for each map task."""

from mrjob.job import MRJob
from mrjob.protocol import RawProtocol


class Job(MRJob):
    HADOOP_INPUT_FORMAT = "org.apache.hadoop.mapred.lib.NLineInputFormat"
    JOBCONF = {"mapreduce.input.lineinputformat.linespermap": "7"}
    INPUT_PROTOCOL = RawProtocol

    def mapper_init(self):
        self.lines = []

    def mapper(self, offset, line):
        self.lines.append([int(offset), line])

    def mapper_final(self):
        yield None, self.lines


if __name__ == "__main__":
    Job.run()
