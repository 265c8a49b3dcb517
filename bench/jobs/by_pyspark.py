"""The jobs as one writes them for Spark by hand: python by_pyspark.py JOB INPUT OUTPUT."""

import json
import os
import sys
from operator import add

from pyspark import SparkContext


def run(job, lines):
    """The RDD of (key, value) of a job."""
    if job in ("wc", "wcnc", "mostused"):
        pairs = lines.flatMap(str.split).map(lambda word: (word, 1))
        if job == "wcnc":  # without combining before the shuffle
            return pairs.groupByKey().mapValues(sum)
        counts = pairs.reduceByKey(add)
        if job == "wc":
            return counts
        most = counts.map(lambda pair: (pair[1], pair[0])).max()
        return lines.context.parallelize([(None, most)], 1)
    if job == "group":
        pairs = lines.map(str.split).map(lambda fields: (fields[0], (int(fields[1]), 1)))
        return pairs.reduceByKey(lambda a, b: (a[0] + b[0], a[1] + b[1]))
    return lines.map(lambda line: tuple(line.split(" ", 1))).sortByKey()


def main(job, source, output):
    cores = len(os.sched_getaffinity(0))
    context = SparkContext(master=f"local[{cores}]", appName=job)
    context.setLogLevel("ERROR")
    result = run(job, context.textFile("file://" + source))
    text = result.map(lambda pair: f"{json.dumps(pair[0])}\t{json.dumps(pair[1])}")
    text.saveAsTextFile("file://" + output)
    context.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
