"""Substeps that run a command, chosen with --shape."""

from mrjob.job import MRJob
from mrjob.step import MRStep


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--shape", required=True)

    def words(self, _, line):
        for word in line.split():
            yield word, 1

    def total(self, word, counts):
        yield word, sum(counts)

    def initial(self, word, count):
        yield word[:1], count

    def steps(self):
        ones = """awk '{for (i = 1; i <= NF; i++) print $i "\\t1"}'"""
        totals = """awk -F '\\t' '{n[$1] += $2} END {for (k in n) print k "\\t" n[k]}'"""
        return {
            "mapper": [MRStep(mapper_cmd="tr a-z A-Z")],
            "mapper-reducer": [MRStep(mapper_cmd=ones, reducer_cmd=totals)],
            "all": [MRStep(mapper_cmd=ones, combiner_cmd=totals, reducer_cmd=totals)],
            "python-then-reducer": [MRStep(mapper=self.words, reducer_cmd=totals)],
            "python-then-combiner": [MRStep(mapper=self.words, combiner_cmd=totals, reducer=self.total)],
            "command-then-python": [
                MRStep(mapper=self.words, reducer_cmd=totals),
                MRStep(mapper=self.initial, reducer=self.total),
            ],
            "python-then-command": [
                MRStep(mapper=self.words, combiner=self.total, reducer=self.total),
                MRStep(mapper_cmd="cat"),
            ],
            "no-match": [MRStep(mapper_cmd="sh -c 'grep nosuchword || true'")],
        }[self.options.shape]


if __name__ == "__main__":
    Job.run()
