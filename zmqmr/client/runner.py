"""mrjob's runner class for `-r zeromq`: makes a JobSpec of what mrjob hands over and has it run."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from mrjob.bin import MRJobBinRunner
from mrjob.conf import combine_dicts, combine_local_envs
from mrjob.step import StepFailedException

from zmqmr.client import jobspec, options, resume
from zmqmr.client.callers import driven_by_run_job, job_that_makes_runner
from zmqmr.client.claims import claim_outputs
from zmqmr.client.conf_files import conf_files_explained
from zmqmr.client.endings import (
    JobKilled,
    log,
    log_counters,
    nothing_started,
    output_announced,
    quiet_when_nobody_reads,
    said_to_user,
    signals_clean_up,
    temporary_files,
    uninterrupted,
)
from zmqmr.client.jobconf import is_nline
from zmqmr.client.progress import Progress
from zmqmr.client.records import Record, Records
from zmqmr.client.resume import Earlier
from zmqmr.client.session import Run, Session, check_remembered, describe, made_directories
from zmqmr.client.texts import one_line
from zmqmr.data import outputs, places
from zmqmr.data.bundles import forget_time, pack
from zmqmr.data.sort import check_sort
from zmqmr.errors import UsageError
from zmqmr.ids import job_id
from zmqmr.messages import AttemptReport, InputFile, JobEnded, JobSpec, JobUpdate
from zmqmr.settings import Settings

if TYPE_CHECKING:
    from zmqmr.client.follow import OnMessage
    from zmqmr.client.remote_run import RemoteRun

_LOCK = "exec 9>/tmp/wrapper.lock."  # how a line of mrjob's setup script begins
_OWN_LOCK = 'exec 9>"$__mrjob_PWD/.wrapper.lock"'


class ZeroMQMRJobRunner(MRJobBinRunner):
    """Runs an MRJob with zmqmr. Chosen by `-r zeromq`; takes what mrjob's local runner takes.

    UsageError (at construction or from run) when something cannot be used as given, StepFailedException when
    the job fails; under MRJob.run_job each is one line and an exit status.
    """

    alias = "zeromq"

    OPT_NAMES = frozenset(MRJobBinRunner.OPT_NAMES) - options.SPARK_ONLY | options.LOCAL | options.OWN

    _STEP_TYPES = frozenset({jobspec.STREAMING})

    def __init__(self, **kwargs: Any):
        self._foreign: set[str] = set()
        self._counters: list[dict[str, dict[str, int]]] = []
        self._job_class, self._prints = job_that_makes_runner()
        self._there: RemoteRun | None = None  # the cluster that runs the job
        self._detached = False  # whether another process has taken the job over
        self._detached_there = False  # whether the job goes on, on a cluster
        self._left = False  # whether the agent cleans up alone
        self._keeps = False  # whether a later job can use what is left of this one
        self._failed_step: int | None = None
        self._progress: Progress
        self._stdin_path: str | None
        self._output_dir: str | None
        self._local_tmp_dir: str | None
        self._setup_wrapper_script_path: str | None
        try:
            with said_to_user(constructing=True):
                with conf_files_explained():
                    super().__init__(**kwargs)
                self._check_options()
        except BaseException:
            if getattr(self, "_local_tmp_dir", None):
                self._cleanup_local_tmp()
            raise
        self._warn_of_ignored()

    # --- options -----------------------------------------------------------------------------

    @classmethod
    def _default_opts(cls) -> dict[str, Any]:
        # Nothing is worth keeping after a failure: what went wrong is in the explanation.
        return combine_dicts(super()._default_opts(), {"cleanup_on_failure": ["ALL"]})

    def _opt_combiners(self) -> dict[str, Any]:
        return combine_dicts(super()._opt_combiners(), {"cmdenv": combine_local_envs})

    def _fix_opts(self, opts: Any, source: str | None = None) -> dict[str, Any]:
        if isinstance(opts, dict):
            foreign = options.foreign_options(self.OPT_NAMES)
            self._foreign |= {name for name in foreign if opts.get(name)}
            opts = {name: value for name, value in opts.items() if name not in foreign}
        return super()._fix_opts(opts, source)

    def _combine_opts(self, opt_list: list[dict[str, Any]]) -> dict[str, Any]:
        combined = super()._combine_opts(opt_list)
        return {"spark_submit_bin": None, **combined}  # mrjob looks it up, whatever OPT_NAMES says

    def _check_options(self) -> None:
        if self._opts["task_runner_alias"]:
            options.check_alias(self._opts["task_runner_alias"])
        if self._opts["local_tmp_dir"]:
            self._opts["local_tmp_dir"] = os.path.abspath(self._opts["local_tmp_dir"])
        self._check_skipping()
        version = self._opts["hadoop_version"]
        if version and not re.match(r"^\d+(\.\d+)*", str(version)):
            raise UsageError(f"hadoop_version is {version!r}; it must be like 2.7.1")
        self._slots()

    def _check_skipping(self) -> None:
        given = self._opts["skip_bad_records"]
        if given is not None and (not isinstance(given, int) or given < 0):
            raise UsageError(f"skip_bad_records is {given!r}; it must be a number of records, 0 or more")

    def _slots(self) -> int:
        """How many attempts run at a time."""
        given = self._opts["num_cores"]
        if given is None:
            return len(os.sched_getaffinity(0))
        try:
            slots = int(given)
        except (TypeError, ValueError):
            slots = 0
        if not 1 <= slots <= 4096:
            raise UsageError(f"num_cores is {given!r}; it must be 1 to 4096")
        return slots

    def _warn_of_ignored(self) -> None:
        ignored = sorted(self._foreign | ({"libjars"} if self._opts["libjars"] else set()))
        if ignored:
            log.warning("ignored by zmqmr: %s", ", ".join(ignored))

    def _check_steps(self, steps: list[dict[str, Any]]) -> None:
        jobspec.check_step_types(steps)
        super()._check_steps(steps)

    def get_hadoop_version(self) -> str | None:
        """The version that the option hadoop_version names, or None."""
        version = self._opts["hadoop_version"]
        return str(version) if version else None

    def _default_python_bin(self, local: bool = False) -> list[str]:
        return super()._default_python_bin(local=True)

    def _bootstrap_mrjob(self) -> bool:
        # The workers of this machine share the client's installation of mrjob.
        return bool(self._opts["bootstrap_mrjob"])

    def _make_unique_job_key(self, label: str | None = None, owner: str | None = None) -> str:
        return job_id(super()._make_unique_job_key(label, owner))

    def _get_local_tmp_dir(self) -> str:
        """The session's part of the job's directory; see zmqmr.data.places."""
        if not self._local_tmp_dir:
            place = os.environ.get("TMPDIR")
            if place and not self._opts["local_tmp_dir"] and not os.path.isdir(place):
                raise UsageError(f"TMPDIR={place} is no directory; make it, or set another")
            try:
                data = places.make(places.base_directory(self._opts["local_tmp_dir"]), self.get_job_key())
            except OSError as error:
                raise UsageError(f"cannot make a temporary directory: {error}; set local_tmp_dir") from error
            self._lock = places.lock(data)  # held until this process and those it forks have ended
            self._local_tmp_dir = os.path.join(data, places.SESSION)
        return self._local_tmp_dir

    @property
    def _data(self) -> str:
        return os.path.dirname(self._get_local_tmp_dir())

    def cleanup(self, mode: list[str] | None = None) -> None:
        """Remove what the job needed while it ran, as mrjob's option cleanup asks, and leave its cluster."""
        if self._there is not None:
            self._there.close()
        super().cleanup(mode)

    def _cleanup_local_tmp(self) -> None:
        if self._local_tmp_dir and not self._detached and not self._left:
            clean_up = places.prune if self._keeps else places.remove
            uninterrupted(partial(clean_up, self._data))
            os.close(self._lock)
        self._local_tmp_dir = None

    # --- running -----------------------------------------------------------------------------

    def run(self) -> None:
        """Run the job and wait for it.

        UsageError or InputError when it cannot start, StepFailedException when it fails, or is killed (a
        JobKilled), CoordinatorUnreachable when the coordinator is lost. An interrupt cancels the job first.
        """
        announced = output_announced(self._output_is_here)
        with said_to_user(job=self._begun), signals_clean_up(), announced:
            if not self._get_steps():
                raise UsageError("the job has no steps; give it a mapper, a combiner or a reducer")
            super().run()

    def _output_is_here(self) -> bool:
        """Whether the job's output, when it has ended, is in its directory on this machine."""
        if self._detached or self._detached_there:
            return False
        return self._there is None or not self._there.streams

    def _begun(self) -> str:
        """The job's id once it runs, "" before."""
        return self.get_job_key() if self._keeps or self._detached else ""

    def _check_input_paths(self) -> None:
        """Nothing: the inputs are looked at before anything else is done, in `_run`."""

    def _create_input_manifest_if_needed(self) -> None:
        """Nothing: tasks of mapper_raw get whole files as their input."""

    def _create_dir_archives(self) -> None:
        """Nothing yet: `_run` makes the archives, once inputs and output are known to be good."""

    def _run(self) -> None:
        with ExitStack() as undo:
            with nothing_started():
                settings = Settings.from_environ()
                if self._opts["cluster"]:
                    self._there = self._cluster(settings)
                    undo.callback(self._there.close)
                elif self._opts["detach"]:
                    check_remembered(settings)
                earlier = self._earlier(settings, undo)
                with temporary_files(lambda: self._data):
                    spec, step_output, output = self._prepare(settings, undo)
                if self._there is None:
                    spec = msgspec.structs.replace(spec, made=made_directories(output, step_output))
                record = describe(self, spec, settings, self._data, self._prints)
                if earlier is not None:
                    spec = self._take_up(earlier, record, spec)
            run = Run(spec, settings, Session(settings, record), step_output, output, earlier)
            if not self._opts["detach"]:
                self._follow(run)
            elif self._there is None:
                self._detach(run, undo)
            else:
                self._leave(self._there, run)
                return  # and give the output directories up: who fetches the output claims them
            undo.pop_all()
            if self._there is not None and not self._there.streams:
                self._there.close()

    def _cluster(self, settings: Settings) -> "RemoteRun":
        from zmqmr.client.remote_run import RemoteRun

        if self._opts["shared_inputs"] and "-" in self._input_paths:
            raise UsageError(
                "no worker can read this standard input; leave --shared-inputs out, or name files"
            )
        return RemoteRun(
            self._opts["cluster"],
            settings,
            push_inputs=not self._opts["shared_inputs"],
            streams=self._prints and not self._output_dir and driven_by_run_job(),
        )

    def _earlier(self, settings: Settings, undo: ExitStack) -> Earlier | None:
        """The earlier job that is to be resumed, if one is."""
        if not self._opts["resume"] and not self._opts["resume_from"]:
            return None
        records, name = Records.of(settings), self._opts["resume_from"] or ""
        there = (self._there.name, self._there.ask) if self._there is not None else ()
        earlier = resume.find(resume.command_line(), name, records, self._paths_read, *there)
        undo.callback(earlier.close)
        if earlier.record.state in ("lost", "left"):
            resume.take_back_output(earlier.record)
        return earlier

    def _paths_read(self) -> set[str]:
        """The inputs, as a record names them."""
        files = self._list_inputs([path for path in self._input_paths if path != "-"])
        standard_input = {resume.STANDARD_INPUT} if "-" in self._input_paths else set()
        return {file.path for file in files} | standard_input

    def _take_up(self, earlier: Earlier, record: Record, spec: JobSpec) -> JobSpec:
        """The job with what of the earlier one can be used; says what that is."""
        record.resumes = earlier.record.job
        for line in earlier.explain(record):
            log.info("%s", line)
        return msgspec.structs.replace(spec, reuse=earlier.spools) if earlier.usable(record) else spec

    def _detach(self, run: Run, undo: ExitStack) -> None:
        """Let a process of its own follow the job, and say the job's id."""
        from zmqmr.client.detach import in_background

        def follow(begun: Callable[[], None]) -> None:
            try:
                with undo:
                    self._follow(run, begun)
                    undo.pop_all()
                self._ran_job = True
            finally:
                self.cleanup()

        in_background(follow, os.path.join(self._get_local_tmp_dir(), "stderr"))
        self._detached = True
        run.let_go()
        os.close(self._lock)
        record = run.session.record
        prints = " and prints its output" if record.to_stdout else ""
        log.info("the job goes on; zmqmr attach %s follows it%s", run.spec.job, prints)
        if driven_by_run_job():
            print(run.spec.job, flush=True)

    def _leave(self, there: "RemoteRun", run: Run) -> None:
        """Let the job go on, on a cluster, and say its id."""
        there.leave(run)
        self._detached_there = True
        if driven_by_run_job():
            print(run.spec.job, flush=True)

    def _follow(self, run: Run, begun: Callable[[], None] | None = None) -> None:
        """Have the job run and complete its output. `begun` is called once it can be attached to."""
        record = run.session.record
        try:
            with run.session as session:
                self._keeps = self._there is None
                ended = self._submit(run, begun)
                session.ended(ended)
                self._counters = [dict(counters) for counters in ended.counters]
                self._counters += [{} for _ in range(len(run.spec.steps) - len(self._counters))]
                self._log_counters()
                if ended.state != "succeeded":
                    self._raise_failed(ended)
                if self._there is not None:
                    self._there.take(run)
                run.complete_output()
        finally:
            if run.earlier is not None and run.session.known:
                run.earlier.ended(run.spec.job, record.state == "succeeded")
        self._keeps = record.detached and record.to_stdout and not record.output_dir

    def _prepare(
        self, settings: Settings, undo: ExitStack
    ) -> tuple[JobSpec, outputs.OutputDirectory | None, outputs.OutputDirectory]:
        """Check everything that can be checked, cheapest first, and make the JobSpec."""
        if not self._opts["cluster"]:
            check_sort(self._opts["sort_bin"] or ("sort",))
        confs = jobspec.interpret_steps(self, settings)
        self._warn_of_unsupported(confs)
        files = self._list_inputs([path for path in self._input_paths if path != "-"])
        self._output_dir = outputs.local_path(self._output_dir or os.path.join(self._data, places.OUTPUT))
        step_output, output = claim_outputs(
            self._output_dir, self._step_output_dir or "", self._num_steps(), undo
        )
        if "-" in self._input_paths:
            files = self._list_inputs(self._get_input_paths())
        spec = jobspec.build(
            self,
            bundle=self._pack(),
            confs=confs,
            plan=jobspec.plan_input(self, files, confs[0], settings),
            settings=settings,
            output_dir=output.path,
            step_output_dir=step_output.path if step_output else "",
        )
        return spec, step_output, output

    def _list_inputs(self, paths: Iterable[str]) -> list[InputFile]:
        from zmqmr.data.inputs import list_inputs

        return list_inputs(paths)

    def _pack(self) -> tuple[str, str]:
        try:
            super()._create_dir_archives()
        except OSError as error:
            raise UsageError(f"cannot pack a directory for the tasks: {error}") from error
        self._create_setup_wrapper_scripts()
        files, archives = jobspec.bundled(self, "file"), jobspec.bundled(self, "archive")
        return pack(files, archives, self._get_local_tmp_dir())

    def _submit(self, run: Run, begun: Callable[[], None] | None) -> JobEnded:
        def shown(message: JobUpdate | AttemptReport) -> None:
            run.session.note(progress.named(message) if isinstance(message, AttemptReport) else message)
            progress(message)

        progress = self._progress = Progress(
            len(run.spec.steps),
            explain_failures=self._opts["read_logs"] is not False,
            standard_input=self._stdin_path or "",
            elsewhere=self._there is not None,
        )
        try:
            if self._there is not None:
                return self._there.run(run, shown)
            return self._run_here(run, begun, shown)
        finally:
            progress.close()
            self._failed_step = progress.explained.step if progress.explained else None

    def _run_here(self, run: Run, begun: Callable[[], None] | None, on_message: "OnMessage") -> JobEnded:
        from zmqmr.client.garbage import collect_if_due
        from zmqmr.client.local import LocalCluster

        def started(endpoint: str, processes: dict[str, int]) -> None:
            run.session.runs(endpoint, processes)
            if begun is not None:
                begun()

        cluster = LocalCluster(run.settings, self._slots(), self._data, started)
        try:
            with cluster:
                page = f", status page: {cluster.status_url}" if cluster.status_url else ""
                log.info("job %s%s", run.spec.job, page)
                collect_if_due(run.settings)
                return cluster.run(run.spec, on_message)
        finally:
            self._left = not cluster.ended

    def _raise_failed(self, ended: JobEnded) -> None:
        if ended.state == "killed":
            raise JobKilled(ended.job, one_line(ended.reason) or "killed")
        reason = self._progress.known(ended.reason) or "the job failed"
        head, _, rest = reason.partition("\n")
        if rest:
            log.error("%s", "\n  ".join(map(one_line, reason.split("\n"))))  # none of it looks like ours
        raise StepFailedException(
            reason=one_line(head),
            step_num=self._failed_step,
            num_steps=self._num_steps(),
            step_desc=None if self._failed_step is not None else f"The job {ended.job}",
        )

    def _warn_of_unsupported(self, confs: Iterable[Any]) -> None:
        ignored = {what for conf in confs for what in conf.ignored}
        if self._hadoop_input_format and not is_nline(self._hadoop_input_format):
            ignored.add(f"input format {self._hadoop_input_format}")
        if self._hadoop_output_format:
            ignored.add(f"output format {self._hadoop_output_format}")
        if ignored:
            log.warning("ignored by zmqmr, because they need Hadoop: %s", ", ".join(sorted(ignored)))

    # --- setup -------------------------------------------------------------------------------

    def _create_setup_wrapper_scripts(self) -> None:
        for path in self._py_files():
            self._working_dir_mgr.add("file", path)
        if self._setup and not self._setup_wrapper_script_path:
            self._setup_wrapper_script_path = self._write_setup_script(
                self._setup, "setup-wrapper.sh", "setup wrapper script"
            )

    def _create_dir_archive(self, dir_path: str) -> None:
        super()._create_dir_archive(dir_path)
        forget_time(self._dir_archive_path(dir_path))

    def _setup_cmd_content(self, setup: list[Any]) -> list[str]:
        # mrjob's lock file would stay in /tmp for ever.
        lines = super()._setup_cmd_content(setup)
        return [_OWN_LOCK if line.startswith(_LOCK) else line for line in lines]

    # --- results -----------------------------------------------------------------------------

    def counters(self) -> list[dict[str, dict[str, int]]]:
        """The counters of each step, as group -> counter -> value."""
        return [{group: dict(values) for group, values in step.items()} for step in self._counters]

    def _log_counters(self) -> None:
        log_counters(self._counters)

    def cat_output(self) -> Iterator[bytes]:
        """The output as blocks of bytes, decompressed, the parts in order; b"" between two parts."""
        directory = self.get_output_dir()
        if directory is None:
            raise ValueError("Run the job before streaming output")
        if self._detached or self._detached_there:
            return  # `zmqmr attach` has it, when there is some
        if driven_by_run_job():
            quiet_when_nobody_reads()
        if self._there is not None and self._there.streams:
            with said_to_user():
                yield from self._there.stream()
            return
        if self._closed:
            log.warning("the runner is closed: its output is probably gone; read it before cleanup()")
        if os.path.isdir(directory):
            log.info("Streaming final output from %s...", directory)
            with said_to_user():
                yield from outputs.stream(outputs.parts(directory))
