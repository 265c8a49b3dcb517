"""Protocols that the user wrote, chosen with --kind."""

from mrjob.job import MRJob


class NoTab:
    """Lines without a TAB: the whole of a line is the key."""

    def read(self, line):
        return line.decode("utf-8"), None

    def write(self, key, value):
        return str(key).encode("utf-8")


class CarriageReturn:
    """Encoded values that end in a carriage return."""

    def read(self, line):
        key, value = line.split(b"\t", 1)
        return key.decode("utf-8"), int(value.rstrip(b"\r"))

    def write(self, key, value):
        return f"{key}\t{value}\r".encode()


class Spaces:
    """Keys and values with spaces at both ends."""

    def read(self, line):
        key, value = line.split(b"\t", 1)
        return key.decode("utf-8"), int(value)

    def write(self, key, value):
        return f" {str(key).strip()} \t  {value}  ".encode()


class SpaceSeparated:
    """A space where others have a TAB: to the shuffle a whole line is the key."""

    def read(self, line):
        key, value = line.rsplit(b" ", 1)
        return key.decode("utf-8"), int(value)

    def write(self, key, value):
        return f"{key} {value}".encode()


class Binary:
    """Bytes that are no UTF-8, with NUL and TAB in the value."""

    def read(self, line):
        key, value = line.split(b"\t", 1)
        return key.strip(b"\xff\x00").decode("utf-8"), len(value.split(b"\t"))

    def write(self, key, value):
        return b"\xff\x00" + str(key).encode() + b"\t" + b"\t".join([b"\xfe"] * int(value))


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--kind", default="NoTab")

    def internal_protocol(self):
        return globals()[self.options.kind]()

    def output_protocol(self):
        return globals()[self.options.kind]()

    def mapper(self, _, line):
        for word in line.split():
            yield word, 1

    def reducer(self, word, values):
        values = list(values)
        yield word, len(values)


if __name__ == "__main__":
    Job.run()
