"""One run of a job on a cluster: push its files, follow it, take its output."""

from collections.abc import Iterator
from contextlib import ExitStack

from zmqmr.client.cluster import find_cluster
from zmqmr.client.endings import log, reader_has_gone
from zmqmr.client.follow import OnMessage
from zmqmr.client.records import Record, Records
from zmqmr.client.remote import RemoteCluster
from zmqmr.client.remote_output import fetch, fetch_left_out, stream
from zmqmr.client.remote_records import news
from zmqmr.client.session import Run
from zmqmr.client.texts import size_words
from zmqmr.errors import CoordinatorUnreachable
from zmqmr.messages import JobEnded
from zmqmr.settings import Settings


class RemoteRun:
    """What the runner asks of a cluster, for one job. `close` it: then the cluster forgets the job's files,
    unless somebody may want them still."""

    def __init__(self, name: str, settings: Settings, *, push_inputs: bool, streams: bool):
        """`name`: as --cluster has it. `streams`: the output is not fetched but read by `stream`. UsageError
        when there is no such cluster."""
        self.name = name
        self.streams = streams
        self._settings = settings
        self._push_inputs = push_inputs
        self._cluster = find_cluster(name, settings)
        self._stack = ExitStack()
        self._there: RemoteCluster | None = None
        self._run: Run | None = None
        self._ended: JobEnded | None = None
        self._keeps = False  # whether the store is to keep the job's files
        self._streamed = False  # whether some of the output was read

    def ask(self, record: Record) -> Record:
        """The record of a job that its client left, with what the cluster says of its end."""
        with RemoteCluster(self._cluster, self._settings) as there:
            return news(record, there, Records.of(self._settings))

    def run(self, run: Run, on_message: OnMessage) -> JobEnded:
        """Have the job run to its end. An interrupt kills it."""
        there = self._push(run)
        log.info("running on the cluster %s: %s", self.name, run.spec.job)
        try:
            self._ended = there.run(run.spec, on_message)
        except KeyboardInterrupt:
            if there.killed is not None:
                self._keeps = False
                run.session.ended(there.killed)
            raise
        _say_reused(run, self._ended)
        self._keeps = self._ended.state == "succeeded"
        if not self._keeps and any(stage.done for stage in self._ended.stages):
            log.info("what its tasks finished is kept there; the same command with --resume uses it again")
        return self._ended

    def leave(self, run: Run) -> None:
        """Have the job run without us; returns when the cluster has it."""
        with run.session as session:
            self._push(run).submit(run.spec)
            log.info("the job runs; follow it with: zmqmr attach %s", run.spec.job)
            session.leave()

    def take(self, run: Run) -> None:
        """Fetch the output of the job, which has succeeded, except what will be read by `stream`."""
        assert self._there is not None and self._ended is not None
        step_output = run.step_output.path if run.step_output else ""
        size = size_words(sum(file.size for file in self._ended.files))
        if self.streams:
            fetch(self._there, self._ended.files, "", step_output)
            fetch_left_out(self._there, self._ended.files, run.output.path)
            log.info("the output, %s, comes from the cluster %s", size, self.name)
        else:
            log.info("fetching the output, %s, from the cluster %s", size, self.name)
            fetch(self._there, self._ended.files, run.output.path, step_output)
            self._keeps = False

    def stream(self) -> Iterator[bytes]:
        """The output as it arrives, the parts in order; b"" between two."""
        if self._there is None or self._ended is None:
            log.warning("the runner is closed: its output is gone; read it before cleanup()")
            return
        self._streamed = True
        yield from stream(self._there, self._ended.files)
        self._keeps = False

    def close(self) -> None:
        """End the connection."""
        if self._there is None:
            return
        there, self._there = self._there, None
        with self._stack:
            if self._streamed and self._keeps and reader_has_gone():
                self._keeps = False  # as of `| head`, who has seen enough
            if not self._keeps:
                if there.pushing:
                    there.release([file.sha256 for file in self._ended.files] if self._ended else [])
            elif self._ended is not None:
                job = self._ended.job
                log.error(
                    "the job has succeeded, and its output is kept; fetch it with: zmqmr attach %s", job
                )
        has_all = self._ended is not None and self._ended.state == "succeeded" and not self._keeps
        if has_all and self._run is not None:
            self._run.session.fetched()

    def _push(self, run: Run) -> RemoteCluster:
        """Put the job's files into the store. What was put is found there by the next run, if there is one
        within a day."""
        there = self._there = self._stack.enter_context(
            RemoteCluster(self._cluster, self._settings, run.spec.job)
        )
        self._run = run
        run.session.runs(self.name, {})
        try:
            run.spec = there.push(run.spec, inputs=self._push_inputs)
        except CoordinatorUnreachable as error:
            again = "; run the job again: what was pushed is not pushed again" if there.pushing else ""
            raise CoordinatorUnreachable(f"{error}{again}") from error
        self._keeps = True
        run.session.goes_there()
        return there


def _say_reused(run: Run, ended: JobEnded) -> None:
    """Say how much of an earlier run was of use, and why not the rest."""
    if not run.spec.reuse:
        return
    reused = sum(stage.reused for stage in ended.stages)
    tasks = sum(stage.tasks for stage in ended.stages)
    others = (
        "" if reused == tasks else "; the others had not finished, have changed, or went with their worker"
    )
    log.info("%d of %d tasks were done by %s%s", reused, tasks, run.spec.reuse, others)
