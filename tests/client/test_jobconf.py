"""Jobconf: what is honoured, in both spellings, and what is refused with the name of the key."""

import pytest

from zmqmr.client.jobconf import StepConf, interpret, is_nline
from zmqmr.errors import UsageError
from zmqmr.messages import Partitioner
from zmqmr.settings import Settings

LIB = "org.apache.hadoop.mapred.lib."


def conf(jobconf: dict[str, str], partitioner: str = "", sort_values: bool = False) -> StepConf:
    return interpret(jobconf, Settings(), partitioner=partitioner, sort_values=sort_values)


def test_without_jobconf_the_settings_count():
    default = conf({})
    assert (default.maps, default.reduces, default.compress, default.ignored) == (None, None, "", ())
    assert (default.map_attempts, default.reduce_attempts, default.timeout_seconds) == (4, 4, 600)
    assert default.partitioner == Partitioner()
    assert default.split_bounds(Settings()) == (Settings().split_floor_bytes, Settings().split_bytes)


@pytest.mark.parametrize(
    ("new", "old", "value", "field", "expected"),
    [
        ("mapreduce.job.maps", "mapred.map.tasks", "7", "maps", 7),
        ("mapreduce.job.reduces", "mapred.reduce.tasks", "0", "reduces", 0),
        ("mapreduce.map.maxattempts", "mapred.map.max.attempts", "2", "map_attempts", 2),
        ("mapreduce.reduce.maxattempts", "mapred.reduce.max.attempts", "9", "reduce_attempts", 9),
        ("mapreduce.task.timeout", "mapred.task.timeout", "1500", "timeout_seconds", 1.5),
        ("mapreduce.task.timeout", "mapred.task.timeout", "0", "timeout_seconds", 0),
        ("mapreduce.input.fileinputformat.split.minsize", "mapred.min.split.size", "10", "split_min", 10),
        ("mapreduce.input.fileinputformat.split.maxsize", "mapred.max.split.size", "10", "split_max", 10),
        (
            "mapreduce.input.lineinputformat.linespermap",
            "mapred.line.input.format.linespermap",
            "3",
            "lines_per_map",
            3,
        ),
        ("mapreduce.output.fileoutputformat.compress", "mapred.output.compress", "true", "compress", "gz"),
        ("mapreduce.job.name", "mapred.job.name", "x y", "name", "x y"),
        ("zmqmr.pack.files", "zmqmr.pack.files", "false", "pack_files", False),
    ],
)
def test_both_spellings_mean_the_same(new: str, old: str, value: str, field: str, expected: object):
    assert getattr(conf({new: value}), field) == getattr(conf({old: value}), field) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mapreduce.job.maps", "many"),
        ("mapreduce.job.maps", "0"),
        ("mapreduce.job.reduces", "-1"),
        ("mapreduce.job.reduces", "1000000"),
        ("mapreduce.job.reduces", "1.5"),
        ("mapreduce.map.maxattempts", "0"),
        ("mapreduce.task.timeout", "-5"),
        ("mapreduce.input.fileinputformat.split.maxsize", "64m"),
        ("mapreduce.output.fileoutputformat.compress", "yes"),
        ("mapreduce.input.lineinputformat.linespermap", "0"),
    ],
)
def test_nonsense_is_refused_and_the_key_is_named(key: str, value: str):
    with pytest.raises(UsageError, match=key):
        conf({key: value})


@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        ("org.apache.hadoop.io.compress.GzipCodec", "gz"),
        ("org.apache.hadoop.io.compress.BZip2Codec", "bz2"),
        ("bzip2", "bz2"),
    ],
)
def test_output_is_compressed_only_when_it_is_asked_for(codec: str, expected: str):
    key = "mapreduce.output.fileoutputformat.compress"
    assert conf({key: "true", key + ".codec": codec}).compress == expected
    assert conf({key: "false", key + ".codec": codec}).compress == ""
    assert conf({key + ".codec": codec}).compress == ""


def test_a_codec_that_is_not_there_is_refused():
    jobconf = {"mapred.output.compress": "true", "mapred.output.compression.codec": "a.b.SnappyCodec"}
    with pytest.raises(UsageError, match=r"SnappyCodec.*GzipCodec or BZip2Codec"):
        conf(jobconf)


def test_split_bounds_follow_hadoop_where_the_minimum_wins():
    low, high = (
        "mapreduce.input.fileinputformat.split.minsize",
        "mapreduce.input.fileinputformat.split.maxsize",
    )
    settings = Settings()
    assert conf({high: "100"}).split_bounds(settings) == (100, 100)
    assert conf({low: "10", high: "100"}).split_bounds(settings) == (10, 100)
    assert conf({low: "200", high: "100"}).split_bounds(settings) == (200, 200)
    assert conf({low: str(2**40)}).split_bounds(settings) == (2**40, 2**40)


OPTIONS = "mapreduce.partition.keypartitioner.options"
FIELDS = "stream.num.map.output.key.fields"
SEPARATOR = "mapreduce.map.output.key.field.separator"


@pytest.mark.parametrize(
    ("jobconf", "expected"),
    [
        ({}, Partitioner()),
        ({OPTIONS: "-k1,1"}, Partitioner()),
        ({OPTIONS: "-k1,2"}, Partitioner("fields", 1, 2)),
        ({OPTIONS: "-k2", FIELDS: "3"}, Partitioner("fields", 2, 3)),
        ({OPTIONS: "-k2"}, Partitioner("fields", 2, 0)),
        ({FIELDS: "2"}, Partitioner("fields", 1, 2)),
        ({OPTIONS: "-k1,1", SEPARATOR: ","}, Partitioner("fields", 1, 1, ",")),
        ({OPTIONS: "-k2", "map.output.key.field.separator": "."}, Partitioner("fields", 2, 0, ".")),
        ({"mapred.text.key.partitioner.options": "-k2,2"}, Partitioner("fields", 2, 2)),
    ],
)
def test_the_fields_partitioner_takes_whole_fields(jobconf: dict[str, str], expected: Partitioner):
    by_attribute = conf(jobconf, LIB + "KeyFieldBasedPartitioner")
    by_jobconf = conf(jobconf | {"mapreduce.job.partitioner.class": LIB + "KeyFieldBasedPartitioner"})
    assert by_attribute.partitioner == by_jobconf.partitioner == expected
    assert by_attribute.ignored == ()


@pytest.mark.parametrize("options", ["-k1.2,1.3", "-k1,1n", "-k1 -k2", "-k0", "-n", "k1", "-k2,1"])
def test_other_partitioner_options_are_refused(options: str):
    with pytest.raises(UsageError, match=OPTIONS):
        conf({OPTIONS: options}, LIB + "KeyFieldBasedPartitioner")


@pytest.mark.parametrize("separator", ["", "::", "\n"])
def test_a_separator_is_one_character(separator: str):
    with pytest.raises(UsageError, match=SEPARATOR):
        conf({SEPARATOR: separator}, LIB + "KeyFieldBasedPartitioner")


def test_sorted_values_are_partitioned_by_their_key():
    mrjobs = {OPTIONS: "-k1,1", FIELDS: "2"}
    assert conf(mrjobs, sort_values=True).partitioner == Partitioner()
    assert conf(mrjobs, LIB + "KeyFieldBasedPartitioner", sort_values=True).partitioner == Partitioner()


def test_the_hash_partitioner_takes_the_key_whatever_fields_are_sorted():
    for name in ("", LIB + "HashPartitioner", "org.apache.hadoop.mapreduce.lib.partition.HashPartitioner"):
        assert conf({FIELDS: "3"}, name).partitioner == Partitioner()
    assert conf({"stream.map.output.field.separator": ","}).partitioner == Partitioner("fields", 1, 1, ",")


def test_what_has_no_effect_is_reported():
    assert conf({}, "com.example.Mine").ignored == ("partitioner com.example.Mine",)
    assert conf({}, "com.example.Mine").partitioner == Partitioner()
    assert conf({"mapred.output.key.comparator.class": "x"}).ignored == (
        "mapreduce.job.output.key.comparator.class",
    )


def test_both_classes_of_the_nline_input_format_are_known():
    assert is_nline(LIB + "NLineInputFormat")
    assert is_nline("org.apache.hadoop.mapreduce.lib.input.NLineInputFormat")
    assert not is_nline(LIB + "CombineTextInputFormat")


def test_a_task_timeout_leaves_time_to_report_progress() -> None:
    slow = Settings(progress_seconds=2.0)
    for given in ("1", "2000"):
        with pytest.raises(UsageError, match="ZMQMR_PROGRESS_SECONDS"):
            interpret({"mapreduce.task.timeout": given}, slow, partitioner="", sort_values=False)
    for given, seconds in (("2001", 2.001), ("0", 0)):
        conf = interpret({"mapreduce.task.timeout": given}, slow, partitioner="", sort_values=False)
        assert conf.timeout_seconds == seconds
