"""The jobs as one writes them for dask.bag by hand: python by_dask.py JOB INPUT OUTPUT.

There is no idsort: a bag does not sort.
"""

import json
import os
import sys

import dask
import dask.bag


def words(lines):
    return lines.str.split().flatten()


def grouped(lines):
    """Sum and count for each key."""

    def add(total, fields):
        return total[0] + int(fields[1]), total[1] + 1

    def merge(a, b):
        return a[0] + b[0], a[1] + b[1]

    return lines.str.split().foldby(0, add, (0, 0), merge, (0, 0))


def count_all(pair):
    word, same = pair
    return word, len(same)


def run(job, lines):
    """The bag of (key, value) of a job."""
    if job == "wc":
        return words(lines).frequencies()
    if job == "wcnc":
        return words(lines).groupby(str).map(count_all)
    if job == "mostused":
        counts = words(lines).frequencies().map(lambda pair: (pair[1], pair[0]))
        return dask.bag.from_sequence([(None, counts.fold(max).compute())])
    return grouped(lines)


def main(job, source, output):
    cores = len(os.sched_getaffinity(0))
    dask.config.set(scheduler="processes", num_workers=cores)
    blocksize = max(1, min(os.path.getsize(source) // cores + 1, 2**24))
    result = run(job, dask.bag.read_text(source, blocksize=blocksize))
    text = result.map(lambda pair: f"{json.dumps(pair[0])}\t{json.dumps(pair[1])}")
    text.to_textfiles(os.path.join(output, "part-*"))


if __name__ == "__main__":
    main(*sys.argv[1:])
