"""What a task finds in its environment and with jobconf_from_env."""

import os

from mrjob.compat import jobconf_from_env
from mrjob.job import MRJob

NAMES = [
    "mapreduce_map_input_file",
    "map_input_file",
    "mapreduce_task_ismap",
    "mapred_task_is_map",
    "my_own_setting",
    "mapreduce_job_name",
    "GREETING",
    "NOT_SET",
]
PRESENT = [
    "mapreduce_job_id",
    "mapred_job_id",
    "mapreduce_task_id",
    "mapred_tip_id",
    "mapreduce_task_attempt_id",
    "mapred_task_id",
    "mapreduce_task_partition",
    "mapred_task_partition",
    "mapreduce_task_output_dir",
    "mapred_work_output_dir",
    "mapreduce_job_local_dir",
    "job_local_dir",
    "mapreduce_job_cache_files",
    "mapreduce_job_cache_local_files",
]


def facts():
    """The pairs that the environment of this task gives."""
    for name in NAMES:
        yield name, os.environ.get(name)
    for name in PRESENT:
        yield f"{name} is there", name in os.environ
    yield "jobconf my.own.setting", jobconf_from_env("my.own.setting")
    yield "jobconf mapred.task.is.map", jobconf_from_env("mapred.task.is.map")
    yield "jobconf missing", jobconf_from_env("no.such.thing", "default")
    local = os.environ.get("mapreduce_job_local_dir", "")
    yield "in local dir", os.path.realpath(local) == os.path.realpath(os.getcwd())


class Job(MRJob):
    JOBCONF = {"my.own.setting": "seven", "mapreduce.job.name": "the name"}

    def mapper_init(self):
        length = int(os.environ["mapreduce_map_input_length"])
        assert length == int(os.environ["map_input_length"])
        assert int(os.environ["mapreduce_map_input_start"]) == int(os.environ["map_input_start"])
        self.increment_counter("split", "bytes", length)

    def mapper(self, _, line):
        for name, value in facts():
            yield ["mapper", name, value], 1

    def reducer(self, fact, ones):
        yield fact, sum(ones)
        for name, value in facts():
            yield ["reducer", name, value], None


if __name__ == "__main__":
    Job.run()
