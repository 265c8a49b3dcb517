"""FILES, DIRS and ARCHIVES beside the job file."""

from mrjob.job import MRJob


class Job(MRJob):
    FILES = ["plain.txt", "plain.txt#renamed.txt"]
    DIRS = ["folder", "folder#other"]
    ARCHIVES = ["things.tar.gz#things"]

    def mapper_init(self):
        names = ["plain.txt", "renamed.txt", "folder/a.txt", "other/deep/b.txt", "things/inside.txt"]
        self.found = {}
        for name in names:
            with open(name) as file:
                self.found[name] = file.read()

    def mapper(self, _, line):
        yield len(line), sorted(self.found.items())

    def reducer(self, length, found):
        yield length, sorted(found)


if __name__ == "__main__":
    Job.run()
