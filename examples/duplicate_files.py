"""Which files have the same content?

Shows mapper_raw: the mapper gets a whole file, as a path to read in any way it likes, and not its
lines. The input may be anything: archives, images, columnar files.

    zmqmr-run examples/duplicate_files.py $(python examples/stdlib_files.py)
"""

import hashlib
from collections.abc import Iterable, Iterator

from mrjob.job import MRJob


class DuplicateFiles(MRJob):
    def mapper_raw(self, path: str, uri: str) -> Iterator[tuple[str, str]]:
        with open(path, "rb") as file:
            # `path` may be a copy; `uri` is the input as it was named.
            yield hashlib.sha256(file.read()).hexdigest(), uri

    def reducer(self, digest: str, uris: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
        same = sorted(uris)
        if len(same) > 1:
            self.increment_counter("files", "superfluous", len(same) - 1)
            yield digest, same


if __name__ == "__main__":
    DuplicateFiles.run()
