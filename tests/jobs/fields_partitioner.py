"""KeyFieldBasedPartitioner: records with one first field meet in one part file."""

from mrjob.job import MRJob
from mrjob.protocol import RawProtocol


class Job(MRJob):
    INTERNAL_PROTOCOL = RawProtocol
    OUTPUT_PROTOCOL = RawProtocol
    PARTITIONER = "org.apache.hadoop.mapred.lib.KeyFieldBasedPartitioner"
    JOBCONF = {
        "mapreduce.map.output.key.field.separator": ",",
        "mapreduce.partition.keypartitioner.options": "-k1,1",
        "mapreduce.job.reduces": "5",
    }

    def mapper(self, _, line):
        for word in line.split():
            yield f"{word[:1]},{word}", "1"

    def reducer(self, key, values):
        yield key, str(len(list(values)))


if __name__ == "__main__":
    Job.run()
