"""What a job's jobconf asks of zmqmr.

Old and new names of Hadoop mean the same. What is not known here goes to the tasks, as their environment.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from zmqmr.errors import UsageError
from zmqmr.messages import Partitioner
from zmqmr.settings import Settings

MAPS = "mapreduce.job.maps"
REDUCES = "mapreduce.job.reduces"
SPLIT_MIN = "mapreduce.input.fileinputformat.split.minsize"  # bytes
SPLIT_MAX = "mapreduce.input.fileinputformat.split.maxsize"  # bytes
MAP_ATTEMPTS = "mapreduce.map.maxattempts"
REDUCE_ATTEMPTS = "mapreduce.reduce.maxattempts"
TIMEOUT = "mapreduce.task.timeout"  # milliseconds
COMPRESS = "mapreduce.output.fileoutputformat.compress"
CODEC = "mapreduce.output.fileoutputformat.compress.codec"
LINES_PER_MAP = "mapreduce.input.lineinputformat.linespermap"
JOB_NAME = "mapreduce.job.name"
PARTITIONER_CLASS = "mapreduce.job.partitioner.class"
PARTITIONER_OPTIONS = "mapreduce.partition.keypartitioner.options"
KEY_FIELDS = "stream.num.map.output.key.fields"
STREAM_SEPARATOR = "stream.map.output.field.separator"
KEY_SEPARATOR = "mapreduce.map.output.key.field.separator"
PACK_FILES = "zmqmr.pack.files"  # our own: may small inputs share a task

# These change the result on Hadoop, and zmqmr has nothing like them.
UNSUPPORTED = (
    "mapreduce.partition.keycomparator.options",
    "mapreduce.job.output.key.comparator.class",
    "mapreduce.job.output.group.comparator.class",
    "stream.num.reduce.output.key.fields",
)

_MAX_NUMBER = 2**53
_CODECS: dict[str, Literal["gz", "bz2"]] = {
    "gzip": "gz",
    "gzipcodec": "gz",
    "bzip2": "bz2",
    "bzip2codec": "bz2",
}
_KEY_OPTION = re.compile(r"^-k\s*([1-9]\d{0,3})(?:,([1-9]\d{0,3}))?$")
_HASH_PARTITIONER = "HashPartitioner"
_FIELDS_PARTITIONER = "KeyFieldBasedPartitioner"
_NLINE = (
    "org.apache.hadoop.mapred.lib.NLineInputFormat",
    "org.apache.hadoop.mapreduce.lib.input.NLineInputFormat",
)


@dataclass(frozen=True)
class StepConf:
    """What the jobconf of one step says; None where it says nothing."""

    maps: int | None
    reduces: int | None
    split_min: int  # bytes; 0: not given
    split_max: int  # bytes; 0: not given
    map_attempts: int
    reduce_attempts: int
    timeout_seconds: float  # 0: never
    compress: Literal["", "gz", "bz2"]
    lines_per_map: int
    pack_files: bool
    partitioner: Partitioner
    name: str
    ignored: tuple[str, ...]  # what was given and has no effect, to warn of

    def split_bounds(self, settings: Settings) -> tuple[int, int]:
        """The smallest and the largest split of a plain file, in bytes. As in Hadoop the minimum wins."""
        high = self.split_max or settings.split_bytes
        low = self.split_min or min(settings.split_floor_bytes, high)
        return low, max(low, high)


def interpret(
    jobconf: Mapping[str, str], settings: Settings, *, partitioner: str, sort_values: bool
) -> StepConf:
    """What `jobconf` asks for. `partitioner` is the class the job names, or "".

    UsageError names the key whose value makes no sense, or that zmqmr cannot do.
    """
    conf = _Conf(jobconf)
    attempts = settings.max_attempts
    chosen, unknown = _partitioner(conf, partitioner, sort_values)
    return StepConf(
        maps=conf.number(MAPS, low=1, high=100_000),
        reduces=conf.number(REDUCES, low=0, high=100_000),
        split_min=conf.number(SPLIT_MIN) or 0,
        split_max=conf.number(SPLIT_MAX) or 0,
        map_attempts=conf.number(MAP_ATTEMPTS, low=1, high=1000) or attempts,
        reduce_attempts=conf.number(REDUCE_ATTEMPTS, low=1, high=1000) or attempts,
        timeout_seconds=_timeout(conf, settings),
        compress=_compression(conf),
        lines_per_map=conf.number(LINES_PER_MAP, low=1) or 1,
        pack_files=conf.truth(PACK_FILES, True),
        partitioner=chosen,
        name=conf.get(JOB_NAME) or "",
        ignored=(*unknown, *(key for key in UNSUPPORTED if conf.get(key))),
    )


def is_nline(input_format: str) -> bool:
    """Whether a Hadoop input format class is NLineInputFormat."""
    return input_format in _NLINE


class _Conf:
    """Looks values up by any of their names and checks them."""

    def __init__(self, jobconf: Mapping[str, str]):
        self._jobconf = jobconf

    def get(self, key: str) -> str | None:
        from mrjob.compat import jobconf_from_dict

        value = jobconf_from_dict(self._jobconf, key)
        return None if value is None else str(value)

    def number(self, key: str, low: int = 0, high: int = _MAX_NUMBER) -> int | None:
        text = self.get(key)
        if text is None:
            return None
        try:
            number = int(text.strip())
        except ValueError:
            raise UsageError(f"jobconf {key}={text!r} is not a whole number; give one, or unset it") from None
        if not low <= number <= high:
            raise UsageError(f"jobconf {key}={number} must be {low} to {high}; change it, or unset it")
        return number

    def truth(self, key: str, default: bool) -> bool:
        text = self.get(key)
        if text is None:
            return default
        if text.strip().lower() not in ("true", "false"):
            raise UsageError(f"jobconf {key}={text!r} must be true or false")
        return text.strip().lower() == "true"


def _timeout(conf: _Conf, settings: Settings) -> float:
    milliseconds = conf.number(TIMEOUT)
    if milliseconds is None:
        return max(600.0, 2 * settings.progress_seconds)
    if 0 < milliseconds <= settings.progress_seconds * 1000:
        raise UsageError(
            f"jobconf {TIMEOUT}={milliseconds} is not more than ZMQMR_PROGRESS_SECONDS"
            f" ({settings.progress_seconds:g} seconds): tasks that work would be killed before they could"
            " report; raise the one or lower the other"
        )
    return milliseconds / 1000


def _compression(conf: _Conf) -> Literal["", "gz", "bz2"]:
    if not conf.truth(COMPRESS, False):
        return ""
    name = conf.get(CODEC) or "gzip"
    codec = _CODECS.get(name.strip().rpartition(".")[2].lower())
    if codec is None:
        raise UsageError(f"jobconf {CODEC}={name!r} is not available; use GzipCodec or BZip2Codec")
    return codec


def _partitioner(conf: _Conf, class_name: str, sort_values: bool) -> tuple[Partitioner, tuple[str, ...]]:
    """The partitioner, and what was named but is not available."""
    given = class_name or ("" if sort_values else conf.get(PARTITIONER_CLASS) or "")
    simple = given.rpartition(".")[2]
    if simple == _FIELDS_PARTITIONER:
        return _by_fields(conf), ()
    if sort_values and not given:
        return Partitioner(), ()  # mrjob's own choice for SORT_VALUES is the first field of the line: the key
    unknown = () if simple in ("", _HASH_PARTITIONER) else (f"partitioner {given}",)
    separator = _separator(conf, STREAM_SEPARATOR)
    if separator == "\t":
        return Partitioner(), unknown
    return Partitioner("fields", 1, conf.number(KEY_FIELDS, low=1) or 1, separator), unknown


def _by_fields(conf: _Conf) -> Partitioner:
    separator = _separator(conf, KEY_SEPARATOR)
    fields = conf.number(KEY_FIELDS, low=1) or 1
    # A field beyond the key is not there to be hashed; with TABs between fields, the key's end is known here.
    end = fields if separator == "\t" else 0
    text = conf.get(PARTITIONER_OPTIONS)
    if text is None or not text.strip():
        first, last = 1, end
    else:
        match = _KEY_OPTION.match(text.strip())
        if match is None:
            raise UsageError(
                f"jobconf {PARTITIONER_OPTIONS}={text!r} is not available; use -kN or -kN,M, whole fields"
            )
        first, last = int(match[1]), int(match[2] or 0)
        if last and last < first:
            raise UsageError(
                f"jobconf {PARTITIONER_OPTIONS}={text!r} ends before it begins; use -kN,M with N <= M"
            )
        if not last and end >= first:
            last = end
    if separator == "\t" and (first, last) == (1, 1):
        return Partitioner()
    return Partitioner("fields", first, last, separator)


def _separator(conf: _Conf, key: str) -> str:
    separator = conf.get(key)
    if separator is None:
        return "\t"
    if len(separator) != 1 or separator == "\n":
        raise UsageError(f"jobconf {key}={separator!r} must be a single character, not a newline")
    return separator
