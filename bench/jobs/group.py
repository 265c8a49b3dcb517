"""Sum and count for each of very many keys: all of the work is in the shuffle."""

from mrjob.job import MRJob


class Group(MRJob):
    def mapper(self, _, line):
        key, number, _ = line.split()
        yield key, int(number)

    def reducer(self, key, numbers):
        total = count = 0
        for number in numbers:
            total += number
            count += 1
        yield key, [total, count]


if __name__ == "__main__":
    Group.run()
