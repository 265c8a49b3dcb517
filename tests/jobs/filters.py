"""Substeps whose input goes through a shell filter first, chosen with --filter and --where."""

from mrjob.job import MRJob
from mrjob.step import MRStep


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--filter", default="grep e")
        self.add_passthru_arg("--where", default="mapper")

    def words(self, _, line):
        for word in line.split():
            yield word, 1

    def total(self, word, counts):
        yield word, sum(counts)

    def steps(self):
        keywords = {f"{self.options.where}_pre_filter": self.options.filter}
        return [MRStep(mapper=self.words, combiner=self.total, reducer=self.total, **keywords)]


if __name__ == "__main__":
    Job.run()
