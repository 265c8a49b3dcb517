"""One run of a job on a cluster: push its files, follow it, fetch its output."""

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from zmqmr.client.cluster import find_cluster
from zmqmr.client.endings import Left, log
from zmqmr.client.progress import Progress
from zmqmr.client.remote import RemoteCluster
from zmqmr.client.texts import size_words
from zmqmr.data.outputs import OutputDirectory
from zmqmr.errors import InputError, UsageError, ZmqmrError
from zmqmr.messages import JobEnded, JobSpec
from zmqmr.settings import Settings

if TYPE_CHECKING:
    from zmqmr.client.runner import ZeroMQMRJobRunner


class RemoteRun:
    """What the runner's options ask of a cluster."""

    def __init__(self, runner: "ZeroMQMRJobRunner", settings: Settings):
        """UsageError when the cluster is not known, or an option makes no sense there."""
        self._options = runner._opts
        self._settings = settings
        self.failed_step: int | None = None
        for name in ("resume", "resume_from"):
            if self._options[name]:
                switch = name.replace("_", "-")
                raise UsageError(f"--{switch} is for jobs of this machine; leave it out with --cluster")
        self._cluster = find_cluster(self._options["cluster"], settings)

    def run(
        self, spec: JobSpec, output: OutputDirectory, step_output: OutputDirectory | None
    ) -> JobEnded | None:
        """The end of the job, with its output here if it succeeded; None when it goes on without us."""
        with RemoteCluster(self._cluster, self._settings, spec.job) as cluster:
            pushed = self._push(cluster, spec)
            if self._options["detach"]:
                cluster.submit(pushed)
                log.info("the job runs; follow it with: %s", self._attach(spec))
                return None
            ended = self._follow(cluster, pushed)
            if ended.state == "succeeded":
                self._fetch(cluster, spec, ended, output, step_output)
            cluster.release(ended.files)
        return ended

    def _push(self, cluster: RemoteCluster, spec: JobSpec) -> JobSpec:
        try:
            return cluster.push(spec, inputs=not self._options["shared_inputs"])
        except (InputError, KeyboardInterrupt):
            with suppress(ZmqmrError):
                cluster.release(())
            raise

    def _follow(self, cluster: RemoteCluster, spec: JobSpec) -> JobEnded:
        log.info("running on the cluster %s: %s", cluster.name, spec.job)
        progress = Progress(len(spec.steps), explain_failures=self._options["read_logs"] is not False)
        try:
            return cluster.run(spec, progress)
        except Left:
            log.warning("the job %s is being killed", spec.job)
            raise
        finally:
            progress.close()
            self.failed_step = progress.explained.step if progress.explained else None

    def _fetch(
        self,
        cluster: RemoteCluster,
        spec: JobSpec,
        ended: JobEnded,
        output: OutputDirectory,
        step_output: OutputDirectory | None,
    ) -> None:
        size = sum(file.size for file in ended.files)
        log.info("fetching the output, %s, from the cluster %s", size_words(size), cluster.name)
        try:
            cluster.fetch(ended.files, output.path, step_output.path if step_output else "")
            if step_output:
                step_output.commit(sorted(e.path for e in os.scandir(step_output.path) if e.is_dir()))
            output.commit()
        except (ZmqmrError, KeyboardInterrupt):
            log.error("the job has succeeded, and its output is kept; fetch it with: %s", self._attach(spec))
            raise

    def _attach(self, spec: JobSpec) -> str:
        return f"zmqmr attach {spec.job} --cluster {self._options['cluster']}"
