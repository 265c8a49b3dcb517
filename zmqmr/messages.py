"""Every message on the wire, one class each, and the specification of a job. Nothing here does I/O.

Typed and bounded: whatever a peer sends is one of these or a ProtocolError. Never pickle.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from zmqmr.errors import ProtocolError

PROTOCOL = 2

AttemptNumber = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=1e12)]
Count = Annotated[int, Meta(ge=0, le=2**48)]  # an offset in a file, a number of records: up to 281 TB
Sum = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # of many of them
# Names become parts of paths: neither "." nor "..", and no newline, which `$` would let through at the end.
Name = Annotated[str, Meta(pattern=r"\A(?!\.{1,2}\Z)[A-Za-z0-9._:-]{1,200}\Z")]
Word = Annotated[str, Meta(pattern=r"\A[^\0]*\Z")]  # a path, or a word of a command: the system takes no NUL
Text = Annotated[str, Meta(max_length=256_000)]
Short = Annotated[str, Meta(max_length=1000)]
Version = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._+-]{0,100}\Z")]
StepNumber = Annotated[str, Meta(pattern=r"\A[0-9]{1,6}\Z")]  # from 0; the key of a map
Counters = dict[str, dict[str, int]]  # group -> counter -> value
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
LARGEST_COUNTER = 2**63 - 1  # that a message can bear, as Hadoop's counters


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a message."""


class Message(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of the wire unions; the tag is the class name."""


# --- the job ---------------------------------------------------------------------------------


class InputFile(Struct, frozen=True):
    """One input as it was when the job was planned; a later difference fails the job."""

    path: Word  # absolute
    size: Count  # bytes on disk
    mtime_ns: int
    codec: Literal["", "gz", "bz2", "zst"] = ""


class Pushed(Struct, frozen=True):
    """Where the lines of a piece are when the workers cannot read its file: in a blob of the store."""

    blob: Sha256
    offset: Count  # in the blob, of the piece's first byte
    size: Count  # bytes of the piece in the blob
    first: Count  # offset in the file of the piece's first byte
    path: str = ""  # of the blob, on the worker that has fetched it


class Piece(Struct, frozen=True):
    """The lines of `file` that start at an offset in [start, start + length).

    For a compressed file always the whole of it: start 0, length its size on disk.
    """

    file: InputFile
    start: Count
    length: Count
    pushed: Pushed | None = None


class Split(Struct, frozen=True):
    """The input of one map task: one piece, or several small files packed together."""

    pieces: tuple[Piece, ...]


class Substep(Struct, frozen=True):
    """A mapper, combiner or reducer of a step."""

    kind: Literal["script", "command"]
    command: tuple[Word, ...] = ()  # kind command: the argument list to run
    pre_filter: Word = ""  # kind script: a shell command that filters the input


class Partitioner(Struct, frozen=True):
    """How a record finds its partition: crc32 of the chosen bytes of its key, modulo partitions.

    kind "key": the bytes before the first TAB. kind "fields": Hadoop's KeyFieldBasedPartitioner,
    fields `first` to `last` (from 1, inclusive; 0: to the end) of the line split at `separator`.
    """

    kind: Literal["key", "fields"] = "key"
    first: Count = 1
    last: Count = 1
    separator: str = "\t"


# In a step's jobconf: Hadoop's lists of the job's files, as path#name. Their paths are those of one run.
CACHE_LISTS = ("mapreduce.job.cache.archives", "mapreduce.job.cache.files")


class Step(Struct, frozen=True):
    """One step of the job."""

    mapper: Substep | None
    combiner: Substep | None
    reducer: Substep | None
    partitions: Annotated[int, Meta(ge=1, le=100_000)]
    jobconf: dict[str, str]  # as the tasks see it, names with dots
    partitioner: Partitioner = Partitioner()
    map_attempts: AttemptNumber = 4
    reduce_attempts: AttemptNumber = 4
    timeout_seconds: float = 600.0  # without progress; 0: never
    compress: Literal["", "gz", "bz2"] = ""  # of the step's output files


class JobSpec(Struct, frozen=True):
    """All that is needed to run a job; made by the client, immutable from then on."""

    job: Name
    label: str
    script: Word  # name of the job file in the working directory
    task_args: tuple[Word, ...]  # the job's own switches, passed to every task
    steps: Annotated[tuple[Step, ...], Meta(min_length=1)]
    splits: tuple[Split, ...]
    input_mode: Literal["lines", "nlines", "files"]  # nlines: key is the offset; files: mapper_raw
    output_dir: Word  # absolute; must exist and be empty when the job starts
    step_output_dir: Word  # absolute or ""
    bundle: Word  # absolute path of the packed working directory
    bundle_sha256: str
    cmdenv: dict[str, str]
    python_path: tuple[Word, ...] = ()  # names in the working directory, put on PYTHONPATH
    task_python: tuple[Word, ...] = ()  # run tasks with this interpreter, as subprocesses
    sh: tuple[Word, ...] = ("/bin/sh", "-ex")
    sort: tuple[Word, ...] = ("sort",)
    setup_script: Word = ""  # name in the working directory of the setup wrapper
    job_class: str = ""  # qualified name of the class in the job file; empty: the one that the file runs
    skip_bad_records: Count = 0  # how many records that fail their mapper may be left out
    stored: bool = False  # client and workers share no files: bundle, inputs and output go through the store
    bundle_bytes: Count = 0  # size of the bundle, when it is stored
    reuse: Word = ""  # directory with spools of an earlier run of this job
    made: tuple[Word, ...] = ()  # output directories that were not there before, the outermost first


# --- agent to coordinator --------------------------------------------------------------------


class Register(Message, frozen=True):
    """A worker offers its slots; always the first message of an epoch."""

    worker: Name
    epoch: int
    host: Short
    pid: int
    slots: Annotated[int, Meta(ge=1, le=4096)]
    shuffle: Short  # endpoint where its agent takes frames
    version: Version
    protocol: int = PROTOCOL
    mrjob: Version = ""  # empty: the same as the coordinator's
    python: Version = ""


class Heartbeat(Message, frozen=True):
    """Sent from the agent's main loop: the loop turns, so the worker is alive."""

    epoch: int


class Leave(Message, frozen=True):
    """The worker ends in order: what it holds is about to be gone."""

    epoch: int


class AttemptProgress(Message, frozen=True):
    job: Name
    task: Name
    attempt: AttemptNumber
    epoch: int
    records: Count  # input records so far
    bytes: Count  # input bytes so far
    status: Short = ""


class FrameCount(Struct, frozen=True, array_like=True):
    """What an attempt yielded for one partition; or, of partition 0, what its part file holds."""

    partition: Count
    frames: Count  # sent; 0: the partition's owner takes the records from the attempt's spool, or wants none
    bytes: Count
    crc32: Count = 0  # of all the bytes, in the order they were yielded


class StoredFile(Struct, frozen=True, array_like=True):
    """A file of a job's output that the store holds."""

    name: Annotated[str, Meta(pattern=r"^(output|steps)(/[A-Za-z0-9_][A-Za-z0-9._-]{0,100}){1,2}\Z")]
    sha256: Sha256
    size: Count


class AttemptDone(Message, frozen=True):
    """An attempt has read all of its input and sent or written all of its output."""

    job: Name
    task: Name
    attempt: AttemptNumber
    epoch: int
    counters: dict[StepNumber, Counters]
    frames: tuple[FrameCount, ...] = ()
    records: Count = 0
    bytes: Count = 0
    output_records: Count = 0
    output_bytes: Count = 0
    undelivered: tuple[Count, ...] = ()  # partitions whose owner could not be reached
    files: tuple[StoredFile, ...] = ()  # of a job that is stored: what it adds to the job's output


class Failure(Struct, frozen=True):
    """Why an attempt failed, in the pieces that an explanation is made of."""

    reason: Text  # one line
    traceback: Text = ""
    path: str = ""
    offset: Count | None = None  # bytes
    record: str = ""  # escaped and cut
    stderr: Text = ""  # its last lines
    fatal: bool = False  # another attempt would fail alike: do not retry
    crashed: bool = False  # the process ended without explaining itself
    repro: str = ""  # path of its repro bundle
    no_repro: str = ""  # why there is none
    no_room: bool = False  # a drive is full: there may be room later, or elsewhere
    damaged: bool = False  # what it read was made by this job and is not what was written: make it again


class AttemptFailed(Message, frozen=True):
    job: Name
    task: Name
    attempt: AttemptNumber
    epoch: int
    failure: Failure


class Committed(Message, frozen=True):
    """This worker has done its part of the commit."""

    job: Name
    task: Name
    attempt: AttemptNumber
    epoch: int


class CommitFailed(Message, frozen=True):
    """This worker could not do its part of the commit; the attempt must be run again."""

    job: Name
    task: Name
    attempt: AttemptNumber
    epoch: int
    failure: Failure


class OpenFailed(Message, frozen=True):
    """This worker cannot run the job at all: no room, or what would be so on all workers (`fatal`): bad
    bundle, setup failed, job file does not import."""

    job: Name
    epoch: int
    failure: Failure


class AttemptId(Struct, frozen=True, array_like=True):
    """One attempt of one task of one job."""

    job: Name
    task: Name
    attempt: AttemptNumber


class Opened(Message, frozen=True):
    """The worker knows the job and can be given its tasks. `kept`: those whose spools it still has."""

    job: Name
    epoch: int
    kept: tuple[Name, ...] = ()


class Inventory(Message, frozen=True):
    """All that an agent holds, told to a coordinator that has started again. `restarts`: of the Resync that
    it answers."""

    epoch: int
    restarts: Count
    jobs: tuple[Name, ...]
    running: tuple[AttemptId, ...]
    done: tuple[AttemptDone, ...]  # not committed yet
    committed: tuple[AttemptId, ...]


FromAgent = (
    Register
    | Heartbeat
    | Leave
    | AttemptProgress
    | AttemptDone
    | AttemptFailed
    | Committed
    | CommitFailed
    | OpenFailed
    | Opened
    | Inventory
)


# --- coordinator to agent --------------------------------------------------------------------


class Welcome(Message, frozen=True):
    """The coordinator accepted a Register."""

    epoch: int


class Beat(Message, frozen=True):
    """The answer to a Heartbeat. An agent that gets none for the lease ends: it may have been given up."""

    epoch: int


class Resync(Message, frozen=True):
    """The coordinator has started again and knows the worker from its journal: answer with an Inventory.
    `restarts`: how often it has."""

    epoch: int
    restarts: Count


class Refused(Message, frozen=True):
    """The coordinator does not take this peer; `reason` says why. The peer gives up."""

    reason: Text


class OpenJob(Message, frozen=True):
    """A job begins: fetch its bundle, be ready to run its attempts."""

    spec: JobSpec


class RecordAt(Struct, frozen=True, array_like=True):
    """A record of the input."""

    path: str
    offset: Count  # bytes


class Launch(Message, frozen=True):
    """Run an attempt. `links` is the chain of substeps, as (step, "mapper" or "reducer")."""

    job: Name
    task: Name
    attempt: AttemptNumber
    stage: Count
    number: Count  # of the task in its stage: split or partition
    links: tuple[tuple[int, Literal["mapper", "reducer"]], ...]
    combine: bool  # the last link is a mapper whose step has a combiner
    split: Split | None  # a map task's input, or
    source: int | None  # the stage whose partition `number` is the input
    partitions: Count  # of the output; 0: the output is a file
    owners: tuple[str, ...]  # shuffle endpoint of each partition's owner; "": nobody wants the partition
    tasks: Count  # in this stage
    version: Count = 0  # of `owners`: it grows whenever a partition of the stage gets another
    input_bytes: Count = 0  # that the partition holds, if it is whole
    replay: bool = False  # do not run the job: deliver what the kept spool of the task holds
    careful: bool = False  # an attempt crashed: note each record before it is processed
    skip: tuple[RecordAt, ...] = ()  # records to leave out
    progress_seconds: float = 0.0  # that lie at least between two reports of progress


class Kill(Message, frozen=True):
    job: Name
    task: Name
    attempt: AttemptNumber


class Commit(Message, frozen=True):
    """Make this attempt's output the task's output: join its records, keep its spool, or rename its file."""

    job: Name
    task: Name
    attempt: AttemptNumber
    stage: Count
    frames: tuple[FrameCount, ...]  # of the partitions that this worker owns


class OwnerLost(Message, frozen=True):
    """The worker that took frames at this endpoint is gone: attempts that run need not wait for it."""

    job: Name
    shuffle: str


class Discard(Message, frozen=True):
    """Forget the output of an attempt that will not be committed."""

    job: Name
    task: Name
    attempt: AttemptNumber


class EndStage(Message, frozen=True):
    """All tasks that read this stage's output are committed: its partitions may go. Spools stay. What was
    sent to owners up to `version` is not wanted any more."""

    job: Name
    stage: Count
    version: Count


class EndJob(Message, frozen=True):
    """The job is over: kill its attempts, remove what it left, except its spools if they are to be kept."""

    job: Name
    keep: bool = False


ToAgent = (
    Welcome
    | Beat
    | Resync
    | Refused
    | OpenJob
    | Launch
    | Kill
    | Commit
    | OwnerLost
    | Discard
    | EndStage
    | EndJob
)


# --- client and coordinator ------------------------------------------------------------------


class Submit(Message, frozen=True):
    """Run a job. `lease_seconds`: kill it when its clients have not been heard for so long; 0: never."""

    spec: JobSpec
    version: str
    protocol: int = PROTOCOL
    host: Text = ""  # of the client
    mrjob: Version = ""  # empty: the same as the coordinator's
    python: Version = ""
    lease_seconds: Seconds = 0.0


class Cancel(Message, frozen=True):
    """Kill the job; answered by JobEnded."""

    job: Name


class Attach(Message, frozen=True):
    """The client is there and follows the job; sent again and again, so that a coordinator that has
    started again knows where to send. Answered with a JobUpdate, JobEnded or JobUnknown. Before it pushes
    files for the job it says what it is, and is Refused if that does not fit."""

    job: Name
    version: str = ""  # empty: it does not ask
    protocol: int = PROTOCOL
    host: Text = ""
    mrjob: Version = ""


class ListJobs(Message, frozen=True):
    """Answered with JobList."""


FromClient = Submit | Cancel | Attach | ListJobs


class ListWorkers(Message, frozen=True):
    """Answered with WorkerList."""


class Drain(Message, frozen=True):
    """The worker gets no new attempts, or, with `cancel`, takes work again; answered with WorkerList."""

    worker: Name
    cancel: bool = False


FromOperator = ListWorkers | Drain


class Introduction(msgspec.Struct, frozen=True):
    """What every release's first message says of its sender, whatever else that release puts into it."""

    type: str
    version: Version = ""
    protocol: int = 0
    worker: Text = ""
    host: Text = ""


class StageProgress(Struct, frozen=True):
    stage: Count
    step: Count
    kind: Literal["map", "reduce"]
    tasks: Count
    done: Count
    running: Count
    records: Sum
    bytes: Sum
    total_bytes: Sum  # 0: not known
    failures: Count
    status: str = ""  # the newest set_status
    reused: Count = 0  # tasks that an earlier run of the job had finished


class JobUpdate(Message, frozen=True):
    """Progress, a few times a second and whenever a stage ends."""

    job: Name
    stages: tuple[StageProgress, ...]
    slots: Count
    workers: Count
    waiting: str = ""  # why nothing runs


class AttemptReport(Message, frozen=True):
    """An attempt failed and is run again, or ends the job (`final`)."""

    job: Name
    host: str
    step: Count
    task: Name
    attempt: AttemptNumber
    attempts: AttemptNumber
    final: bool
    failure: Failure
    story: tuple[str, ...] = ()  # what happened to the task before, with seconds since the job began
    left_out: bool = False  # whether the task is to leave out the record from now on
    worker: str = ""
    began: bool = True  # False: the worker could not even open the job


class JobEnded(Message, frozen=True):
    job: Name
    state: Literal["succeeded", "failed", "killed"]
    counters: tuple[Counters, ...] = ()  # of committed attempts, by step
    reason: Text = ""
    stages: tuple[StageProgress, ...] = ()
    files: tuple[StoredFile, ...] = ()  # of a job that is stored and succeeded: its output
    seconds: Seconds = 0.0  # from its submission to its end


class Notice(Message, frozen=True):
    """Something that the user should know about a job that goes on all the same."""

    job: Name
    text: Text


class WorkerInfo(Struct, frozen=True):
    """A worker as the coordinator sees it."""

    name: Name
    host: str
    slots: Count
    free: Count  # slots without an attempt
    state: Literal["ready", "draining", "resuming"]
    needed: bool  # it runs attempts, or holds data that a job will read
    heard_seconds: float  # since it was last heard
    shuffle: str
    version: str = ""
    python: str = ""


class WorkerList(Message, frozen=True):
    workers: tuple[WorkerInfo, ...]


class JobSummary(Struct, frozen=True):
    """A job as the coordinator sees it."""

    job: Name
    state: Literal["running", "succeeded", "failed", "killed"]
    reason: Text
    stages: tuple[StageProgress, ...]
    label: str = ""  # known while it runs
    files: Count = 0  # of its output, in the store unless a client has fetched them
    counters: tuple[Counters, ...] = ()
    seconds: Seconds = 0.0  # since its submission, or until its end


class JobList(Message, frozen=True):
    """The jobs that run and those that are remembered, the oldest first."""

    jobs: tuple[JobSummary, ...]


class JobUnknown(Message, frozen=True):
    """The coordinator does not know the job: its Submit was lost, or it ended long ago."""

    job: Name


ToClient = Refused | JobUpdate | AttemptReport | JobEnded | JobUnknown | Notice | JobList
ToOperator = Refused | WorkerList


# --- executor and attempt, over a socket pair and a pipe --------------------------------------


class ExecutorBegun(Message, frozen=True):
    """The setup script, if the job has one, is done; the job is loaded next."""


class ExecutorReady(Message, frozen=True):
    pid: int


class ExecutorFailed(Message, frozen=True):
    """The job cannot be loaded here."""

    failure: Failure


class AttemptEnded(Message, frozen=True):
    """From the executor: an attempt's process is gone."""

    task: Name
    attempt: AttemptNumber
    done: AttemptDone | None
    failure: Failure | None


FromAttempt = AttemptProgress | AttemptDone | AttemptFailed
FromExecutor = ExecutorBegun | ExecutorReady | ExecutorFailed | AttemptProgress | AttemptEnded


class Begin(Message, frozen=True):
    """To the executor, first and once: load this job, in this directory."""

    spec: JobSpec
    work: str


class Seal(Struct, frozen=True, array_like=True):
    """What an intermediate file held when it was finished."""

    path: str
    bytes: Count
    crc32: Count


class Run(Message, frozen=True):
    """To the executor: fork an attempt."""

    launch: Launch
    epoch: int
    runs: tuple[str, ...]  # a reduce task's sorted runs, or the part file that a map task reads
    directory: str  # the attempt's own, made by the agent; holds its output until commit
    output: str  # where the attempt writes its output, or "" for a shuffle
    compress: Literal["", "gz", "bz2"]  # of that output
    shuffle: str = ""  # the agent's own endpoint: what is for it goes into the spool only
    replay: str = ""  # path of the spool to deliver, instead of running the job
    seals: tuple[Seal, ...] = ()  # of `runs`, checked before they are read


ToExecutor = Begin | Run | Kill

_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}
encode = msgspec.msgpack.Encoder().encode


def decode(frame: bytes, union: Any) -> Any:
    """The message in `frame`, one of `union`; any failure is a ProtocolError."""
    decoder = _decoders.get(union)
    if decoder is None:
        decoder = _decoders[union] = msgspec.msgpack.Decoder(union)
    try:
        return decoder.decode(frame)
    except (ValueError, RecursionError) as error:  # bad UTF-8 and deep nesting too
        raise ProtocolError(f"undecodable frame of {len(frame)} bytes: {error}") from error
