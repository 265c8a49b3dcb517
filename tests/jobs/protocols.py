"""Any protocol as input, internal and output protocol, by name."""

import mrjob.protocol
from mrjob.job import MRJob


def fitting(protocol, thing):
    """What `protocol` can carry that still shows `thing`."""
    if protocol.startswith("Bytes"):
        return repr(thing).encode()
    if protocol.startswith(("Text", "Raw")):
        return repr(thing)
    return {"is": repr(thing), "of": [1, 0.5, None, True, "\u00fc\t\\"]}


class Job(MRJob):
    def configure_args(self):
        super().configure_args()
        self.add_passthru_arg("--reads", default="RawValueProtocol")
        self.add_passthru_arg("--between", default="PickleProtocol")
        self.add_passthru_arg("--writes", default="ReprProtocol")

    def input_protocol(self):
        return getattr(mrjob.protocol, self.options.reads)()

    def internal_protocol(self):
        return getattr(mrjob.protocol, self.options.between)()

    def output_protocol(self):
        return getattr(mrjob.protocol, self.options.writes)()

    def mapper(self, key, value):
        yield (
            repr(key).encode() if self.options.between.startswith("Bytes") else repr(key),
            fitting(self.options.between, value),
        )

    def reducer(self, key, values):
        for value in sorted(values, key=repr):
            yield fitting(self.options.writes, key), fitting(self.options.writes, value)


if __name__ == "__main__":
    Job.run()
