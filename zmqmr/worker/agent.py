"""The agent: one a host. It registers the host's slots, runs what the coordinator says, owns partitions.

It decides nothing about jobs. The loop below is its table of contents.
"""

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import zmq
from mrjob import __version__ as mrjob_version

from zmqmr import __version__
from zmqmr.data import places
from zmqmr.errors import EXIT_UNREACHABLE, ProtocolError, SpillError, UsageError
from zmqmr.messages import (
    Beat,
    Commit,
    CommitFailed,
    Committed,
    Discard,
    EndJob,
    EndStage,
    Heartbeat,
    Inventory,
    Kill,
    Launch,
    Leave,
    OpenJob,
    OwnerLost,
    Refused,
    Register,
    Resync,
    ToAgent,
    Welcome,
    decode,
    encode,
)
from zmqmr.net.curve import Keys
from zmqmr.net.endpoints import is_tcp
from zmqmr.net.frames import CorruptFrame, largest_payload, unpack
from zmqmr.net.gate import Door, Gate, Refusal, bound
from zmqmr.net.notify import Notifier
from zmqmr.net.sockets import (
    WORKERS,
    acknowledge,
    context,
    control_client,
    receive,
    shuffle_server,
    worker_identity,
)
from zmqmr.settings import Settings
from zmqmr.words import counted
from zmqmr.worker.ended_jobs import EndedJobs
from zmqmr.worker.explain import explain_spill
from zmqmr.worker.fetch import StoreAccess
from zmqmr.worker.hosted import HostedJob
from zmqmr.worker.spawn import ExecutorProcess

FAREWELL_MILLISECONDS = 200  # for the coordinator to take the last message
SWEEP_SECONDS = 10.0  # between two looks at what ended jobs left
FRAMES_A_TURN = 64  # frames taken before the loop looks at anything else


class Agent:
    """One life of a worker, from registration to shutdown."""

    def __init__(
        self,
        name: str,
        coordinator: str,
        shuffle: str,
        directory: str,
        slots: int,
        settings: Settings,
        lifeline: int | None,
        spare: ExecutorProcess | None,
        leftovers: Sequence[str] = (),
        data: str = "",
        keys: Keys | None = None,
        notifier: Notifier | None = None,
        more_directories: Sequence[str] = (),
        store: str = "",
    ):
        """`coordinator`, `shuffle`: endpoints. `directory`: where jobs live, the agent's own.
        `lifeline`: a descriptor that closes when the agent must end. `spare`: an executor started
        ahead for the first job. `leftovers`: directories that the client removes when it
        ends, and `data`, one that it prunes; if it ends without a word, the agent does. `keys`: needed at
        endpoints that are not private. `more_directories`: on other drives; attempts and partitions go
        round all of them. UsageError when the agent cannot listen, or not safely."""
        self.settings = settings
        self.name = name
        self.slots = slots
        self.directories = (directory, *more_directories)
        self.epoch = int.from_bytes(os.urandom(6), "big")
        self.jobs: dict[str, HostedJob] = {}
        self._lifeline = lifeline
        self._spare = spare
        self._leftovers = leftovers
        self._data = data
        self._lock = self._take_directories()
        self._ended_jobs = EndedJobs(self.directories, settings.state_days, settings.state_bytes)
        self._sweep_at = 0.0
        self._client_is_gone = False
        self._running = True
        self._coordinator = coordinator
        self._notifier = notifier or Notifier()
        self._context = context()
        self._access = StoreAccess(self._context, store, keys, settings) if store else None
        self._gate = Gate(self._context, keys) if keys is not None and is_tcp(shuffle) else None
        self._shuffle = shuffle_server(
            self._context,
            shuffle,
            settings.frames_in_flight,
            largest_payload(settings),
            self._gate,
        )
        self._door = Door(self._shuffle, settings.max_peers) if is_tcp(shuffle) else None
        self._shuffle_endpoint = bound(self._shuffle) if is_tcp(shuffle) else shuffle
        identity = worker_identity(name, self.epoch)
        self._control = control_client(self._context, coordinator, identity, settings, keys)
        self._refusal = Refusal(self._control) if is_tcp(coordinator) else None
        self._commits: list[Commit] = []  # waiting for their last frames
        self._endings: list[threading.Thread] = []  # of jobs that are over
        self._heartbeat_at = 0.0
        self._answered_at = time.monotonic()  # when the coordinator last answered
        self.exit_code = 0
        self._handlers: dict[type, Callable[[Any], None]] = {
            Welcome: self._answered,
            Beat: self._answered,
            Resync: self._resync,
            Refused: self._refused,
            OpenJob: self._open_job,
            Launch: self._launch,
            Kill: self._kill,
            Commit: self._commit,
            OwnerLost: self._owner_lost,
            Discard: self._discard,
            EndStage: self._end_stage,
            EndJob: self._end_job,
        }

    def _take_directories(self) -> int:
        """Lock the first directory, and clear all of what an earlier life left, except the spools of jobs.
        UsageError when it is in use."""
        for directory in self.directories:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        lock = places.lock(self.directories[0])
        if lock < 0:
            raise UsageError(f"another agent works in {self.directories[0]}; give this one another directory")
        for directory in self.directories:
            places.clear_agent(directory)
        return lock

    # --- the loop ----------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to shut down or the lifeline closes; then clean up."""
        try:
            self._register()
            while self._running:
                ready = self._wait()
                self._beat()
                self._watch_connections()
                self._take_control_messages()
                self._take_frames()
                self._finish_commits()
                self._serve_jobs(ready)
                self._check_lifeline(ready)
                self._sweep()
        finally:
            self._clean_up()

    def _wait(self) -> set[int]:
        """Sleep until something can be read or the next heartbeat is due; the readable descriptors."""
        poller = zmq.Poller()
        poller.register(self._control, zmq.POLLIN)
        poller.register(self._shuffle, zmq.POLLIN)
        if self._door is not None:
            poller.register(self._door.signal, zmq.POLLIN)
        if self._lifeline is not None:
            poller.register(self._lifeline, zmq.POLLIN)
        for job in self.jobs.values():
            for descriptor in job.descriptors:
                poller.register(descriptor, zmq.POLLIN)
        timeout = max(0.0, self._heartbeat_at - time.monotonic())
        return {what for what, _ in poller.poll(int(timeout * 1000) + 1) if isinstance(what, int)}

    def _beat(self) -> None:
        now = time.monotonic()
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + self.settings.heartbeat_seconds
            self.send(Heartbeat(self.epoch))
            if now - self._answered_at > self.settings.lease_seconds:
                self._give_up(f"the coordinator at {self._coordinator} {self._silence()}")

    def _silence(self) -> str:
        if self._refusal is not None and self._refusal.is_for_its_key():
            return "has another key than the coordinator.pub that is given: put the new one in its place"
        return f"has not answered for {counted(self.settings.lease_seconds, 'second')}"

    def _watch_connections(self) -> None:
        self._notifier.alive()
        if self._door is not None:
            self._door.turn()
        if self._refusal is not None and (reason := self._refusal.seen()):
            self._give_up(f"the coordinator at {self._coordinator} refuses the connection: {reason}")

    def _take_control_messages(self) -> None:
        while self._running:
            try:
                frame = self._control.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            message = decode(frame, ToAgent)
            self._handlers[type(message)](message)

    def _take_frames(self) -> None:
        for _ in range(FRAMES_A_TURN):
            try:
                (peer, *parts), key = receive(self._shuffle, guarded=self._gate is not None)
            except zmq.Again:
                return
            if self._gate is not None and not self._gate.keys.authorized.roles(key) & WORKERS:
                continue  # its key was revoked while it was connected
            if parts == [b""]:
                acknowledge(self._shuffle, peer)
                continue
            try:
                header, payload = unpack(parts)
            except ProtocolError:
                continue  # no frame of ours; if it was one, its attempt's commit misses it and fails
            except CorruptFrame as error:
                if job := self.jobs.get(error.header.job):
                    job.refuse(error.header, error)
                continue
            if job := self.jobs.get(header.job):
                job.receive(header, payload)

    def _finish_commits(self) -> None:
        for commit in list(self._commits):
            job = self.jobs.get(commit.job)
            if job is None:
                self._commits.remove(commit)
                continue
            try:
                if not job.try_commit(commit):
                    continue
                self.send(Committed(commit.job, commit.task, commit.attempt, self.epoch))
            except (SpillError, OSError) as error:
                failure = explain_spill(error)
                self.send(CommitFailed(commit.job, commit.task, commit.attempt, self.epoch, failure))
            self._commits.remove(commit)

    def _serve_jobs(self, ready: set[int]) -> None:
        for job in list(self.jobs.values()):
            job.serve(ready)

    def _check_lifeline(self, ready: set[int]) -> None:
        if self._lifeline is not None and self._lifeline in ready:
            self._running = False
            self._client_is_gone = not os.read(self._lifeline, 1)

    def _sweep(self) -> None:
        """On a cluster nobody else looks after what ended jobs left; on one machine the client does."""
        now = time.monotonic()
        if self._lifeline is None and now >= self._sweep_at:
            self._sweep_at = now + SWEEP_SECONDS
            self._ended_jobs.sweep(self.jobs)

    # --- messages ----------------------------------------------------------------------------

    def send(self, message: Any) -> None:
        """Send to the coordinator; never blocks. A full queue drops: the coordinator is gone then,
        and its silence or ours ends this life."""
        try:
            self._control.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            pass

    def _register(self) -> None:
        self.send(
            Register(
                worker=self.name,
                epoch=self.epoch,
                host=socket.gethostname()[:200],
                pid=os.getpid(),
                slots=self.slots,
                shuffle=self._shuffle_endpoint,
                version=__version__,
                mrjob=mrjob_version,
                python="{}.{}.{}".format(*sys.version_info[:3]),
            )
        )

    def _answered(self, message: Welcome | Beat) -> None:
        self._answered_at = time.monotonic()
        self._notifier.ready(f"registered with {self._coordinator}, {len(self.jobs)} jobs")

    def _resync(self, message: Resync) -> None:
        self._answered_at = time.monotonic()
        attempts = [job.inventory() for job in self.jobs.values()]
        self.send(
            Inventory(
                epoch=self.epoch,
                restarts=message.restarts,
                jobs=tuple(self.jobs),
                running=tuple(each for running, _, _ in attempts for each in running),
                done=tuple(each for _, done, _ in attempts for each in done),
                committed=tuple(each for _, _, committed in attempts for each in committed),
            )
        )

    def _refused(self, message: Refused) -> None:
        self._give_up(message.reason)

    def _give_up(self, reason: str) -> None:
        """End this life; whoever started the agent starts another."""
        print(f"zmqmr worker {self.name}: {reason}; it ends and is started again", file=sys.stderr)
        self.exit_code = EXIT_UNREACHABLE
        self._running = False

    def _open_job(self, message: OpenJob) -> None:
        spec = message.spec
        name = spec.job
        if name not in self.jobs:
            spare, self._spare = self._spare, None
            if spec.reuse in self.jobs:  # it runs still, and needs its spools itself
                spec = msgspec.structs.replace(spec, reuse="")
            self.jobs[name] = HostedJob(
                spec,
                self.directories,
                self.settings,
                self.slots,
                self.epoch,
                self._shuffle_endpoint,
                self.send,
                spare,
                self._access,
            )
        self.jobs[name].open()

    def _launch(self, message: Launch) -> None:
        if job := self.jobs.get(message.job):
            job.launch(message)

    def _kill(self, message: Kill) -> None:
        if job := self.jobs.get(message.job):
            job.kill(message)

    def _commit(self, message: Commit) -> None:
        self._commits.append(message)

    def _owner_lost(self, message: OwnerLost) -> None:
        if job := self.jobs.get(message.job):
            job.lose_owner(message.shuffle)

    def _discard(self, message: Discard) -> None:
        if job := self.jobs.get(message.job):
            job.discard(message.task, message.attempt)
        self._commits = [
            commit
            for commit in self._commits
            if (commit.job, commit.task, commit.attempt) != (message.job, message.task, message.attempt)
        ]

    def _end_stage(self, message: EndStage) -> None:
        if job := self.jobs.get(message.job):
            job.end_stage(message.stage, message.version)
        self._commits = [  # what a job begun anew must not take over
            commit for commit in self._commits if (commit.job, commit.stage) != (message.job, message.stage)
        ]

    def _end_job(self, message: EndJob) -> None:
        if job := self.jobs.pop(message.job, None):
            endings = [ending for ending in self._endings if ending.is_alive()]
            self._endings = [*endings, job.close(keep=message.keep)]
        elif not message.keep:  # it ended while an earlier life of this worker was away
            for directory in self.directories:
                places.clear_job(os.path.join(directory, message.job), keep=False)

    def _close_sockets(self) -> None:
        if self._refusal is not None:
            self._refusal.close()
        self._control.close(linger=FAREWELL_MILLISECONDS)
        if self._door is not None:
            self._door.close()
        self._shuffle.close()
        if self._gate is not None:
            self._gate.close()
        self._context.term()

    def _clean_up(self) -> None:
        self._notifier.stopping()
        # A client that lives decides itself what becomes of the output; its news of the job's end may
        # have overtaken ours.
        for job in self.jobs.values():
            if self._client_is_gone:
                job.abort()
            else:
                self._endings.append(job.close(keep=True))
        self.jobs.clear()
        for ending in self._endings:
            ending.join()
        if self._spare is not None:
            self._spare.close()
        if self._lifeline is None and not self.exit_code:
            self.send(Leave(self.epoch))
        self._close_sockets()
        for directory in self.directories:
            places.clear_agent(directory)
            with suppress(OSError):  # of use to a later run
                os.rmdir(directory)
        os.close(self._lock)
        if self._client_is_gone:
            for path in self._leftovers:
                shutil.rmtree(path, ignore_errors=True)
            if self._data:
                places.prune(self._data)


def run_agent(agent_arguments: dict[str, Any]) -> None:
    """The main function of an agent's process. TERM and INT end it in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the client's to handle
    agent = Agent(**agent_arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: setattr(agent, "_running", False))
    agent.run()
    if agent.exit_code:
        raise SystemExit(agent.exit_code)
