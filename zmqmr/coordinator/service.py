"""The coordinator's shell: frames become events, commands become frames, time passes. It decides nothing."""

import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any

import zmq

from zmqmr.coordinator.admission import may_say, misfit, misfit_of_another_release, other_pythons
from zmqmr.coordinator.encoding import Encoding
from zmqmr.coordinator.eventlog import logged
from zmqmr.coordinator.journal import Journal
from zmqmr.coordinator.store import BlobStore
from zmqmr.coordinator.store_server import StoreServer
from zmqmr.core.events import (
    ClientAttached,
    Command,
    CoordinatorRestarted,
    Event,
    Inform,
    JobCancelled,
    JobSubmitted,
    Reported,
    Tell,
    Tick,
    WorkerDrained,
    WorkerJoined,
    WorkerKept,
    WorkerLost,
)
from zmqmr.core.scheduler import Scheduler
from zmqmr.errors import ProtocolError
from zmqmr.messages import (
    Attach,
    AttemptProgress,
    Beat,
    Cancel,
    Drain,
    FromAgent,
    FromClient,
    FromOperator,
    Heartbeat,
    Introduction,
    JobList,
    JobSummary,
    JobUnknown,
    Leave,
    ListJobs,
    ListWorkers,
    Notice,
    Refused,
    Register,
    Resync,
    Submit,
    Welcome,
    WorkerInfo,
    WorkerList,
    decode,
)
from zmqmr.net.curve import Keys
from zmqmr.net.endpoints import is_tcp
from zmqmr.net.gate import Door, Gate, bound
from zmqmr.net.notify import Notifier
from zmqmr.net.sockets import context, control_server, waiting, worker_identity
from zmqmr.settings import Settings

TICK_SECONDS = 0.1  # between two looks at what time has brought about ...
TICK_SHARE = 0.05  # ... which take no more than this part of a processor
FRAMES_A_TURN = 256
LONG_JOURNAL = 2000  # events after which a journal is shortened when no job is live
NAMED_ONCE = 1000  # peers whose bad messages were said


class Coordinator:
    """One coordinator process. Peers that send what is not a message are ignored."""

    def __init__(
        self,
        endpoint: str,
        settings: Settings,
        lifeline: int | None,
        journal: str,
        note: Callable[[Any], None],
        keys: Keys | None = None,
        notifier: Notifier | None = None,
        store: str = "",
        store_directory: str = "",
    ):
        """`lifeline`: a descriptor that closes when the coordinator must end. `journal`: its path; what it
        holds is taken up again. `note`: is told whatever clients are told. `keys`: needed at an endpoint that
        is not private. `store`: endpoint of the store of blobs, which are kept in `store_directory`; empty:
        there is none. UsageError when it cannot listen there, or not safely."""
        self.settings = settings
        self.running = True
        self._scheduler = Scheduler(
            settings.worker_timeout_seconds,
            settings.worker_wait_seconds,
            settings.max_counters,
            settings.exclude_failures,
        )
        self._context = context()
        self._journal = Journal(journal)
        self._unwritten: list[tuple[float, Event]] = []
        self._journal_is_behind = False
        self._commands: list[Command] = []
        self._note = note
        self._later = 0.0  # what the clock must be moved on so that it never goes back, after a reboot
        self._tick_at = 0.0
        self._encoded = Encoding()
        self._written = 0  # events in the journal
        self._host = socket.gethostname()[:200]
        self._named: set[bytes] = set()
        self._notifier = notifier or Notifier()
        self._replay()
        self._gate = Gate(self._context, keys) if keys is not None and is_tcp(endpoint) else None
        self._socket = control_server(self._context, endpoint, settings, self._gate)
        self._door = Door(self._socket, settings.max_peers) if is_tcp(endpoint) else None
        self.endpoint = bound(self._socket) if is_tcp(endpoint) else endpoint
        self._lifeline = lifeline
        self.store: StoreServer | None = None
        if store:
            blobs = BlobStore(store_directory, settings.store_keep_seconds, settings.store_bytes)
            self.store = StoreServer(self._context, store, blobs, settings.max_peers, self._gate)

    def run(self) -> None:
        """Serve until the lifeline closes or TERM comes."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        if self._lifeline is not None:
            poller.register(self._lifeline, zmq.POLLIN)
        if self._door is not None:
            poller.register(self._door.signal, zmq.POLLIN)
        if self.store is not None:
            self.store.running = frozenset(self._scheduler.jobs)
            self.store.start()
        try:
            while self.running:
                timeout = max(0.0, self._tick_at - time.monotonic())
                ready = dict(poller.poll(int(timeout * 1000) + 1))
                if self._door is not None:
                    self._door.turn()
                self._take_frames()
                self._tick()
                self._carry_out_all()
                self.running = self.running and self._lifeline not in ready
        finally:
            self._notifier.stopping()
            self._close()

    def _close(self) -> None:
        if self.store is not None:
            self.store.stop()
        if self._door is not None:
            self._door.close()
        self._socket.close(linger=100)
        if self._gate is not None:
            self._gate.close()
        self._context.term()
        self._journal.close()

    # --- the journal -------------------------------------------------------------------------

    def _now(self) -> float:
        return time.monotonic() + self._later

    def _replay(self) -> None:
        """Take up what the journal holds: the same events give the same state. Their commands are not
        sent again; the workers say what they hold."""
        count, last = 0, 0.0
        for last, event in self._journal.replay():
            self._scheduler.handle(event, last)
            count += 1
        self._journal.cut(count)
        self._written = count
        if count:
            self._later = max(0.0, last - time.monotonic())
            self._handle(CoordinatorRestarted())

    def _handle(self, event: Event) -> None:
        """Decide about an event. Its commands wait until it is in the journal."""
        now = self._now()
        if _is_news_only(event):
            self._commands += self._scheduler.handle(event, now)
            return
        with logged(event, self._scheduler):
            self._commands += self._scheduler.handle(event, now)
        self._unwritten.append((now, event))

    def _carry_out_all(self) -> None:
        """First the journal, then the commands; a send that fails is one more event."""
        while True:
            if self._unwritten:
                self._write_journal()
            commands, self._commands = self._commands, []
            if not commands:
                return
            for command in commands:
                self._carry_out(command)

    def _write_journal(self) -> None:
        """While the drive is full the job goes on, and what is not written yet waits for room: a coordinator
        killed in that time knows less, which costs work; ending it would cost the job."""
        try:
            self._journal.append(self._unwritten)
        except sqlite3.OperationalError as error:
            if not self._journal_is_behind:
                path = self._journal.path
                print(f"zmqmr coordinator: cannot write {path}: {error}; it goes on", file=sys.stderr)
            self._journal_is_behind = True
        else:
            self._written += len(self._unwritten)
            self._unwritten = []
            self._journal_is_behind = False

    def _shorten_journal(self) -> None:
        """Without a live job, a few events say all that the journal does."""
        if self._written <= LONG_JOURNAL or self._scheduler.jobs or self._unwritten:
            return
        now = self._now()
        events = [(now, event) for event in self._scheduler.summary()]
        try:
            self._journal.replace(events)
        except sqlite3.OperationalError as error:
            print(f"zmqmr coordinator: cannot shorten {self._journal.path}: {error}", file=sys.stderr)
            self._written = 0  # try again after as many events
        else:
            self._written = len(events)

    # --- what comes in -----------------------------------------------------------------------

    def _take_frames(self) -> None:
        for peer, frame, key in waiting(self._socket, self._gate is not None, FRAMES_A_TURN):
            self._receive(peer, frame, key)

    def _receive(self, peer: bytes, frame: bytes, key: bytes) -> None:
        try:
            message = decode(frame, _FromAnyone)
        except ProtocolError as error:
            self._say_once(peer, f"sends what is no message: {error}")
            reason = self._misfit_of(frame)
            if reason or peer.startswith(b"client:"):
                self._send(peer, Refused(reason or str(error)))
            return
        if self._gate is not None and not may_say(self._gate.keys.authorized.roles(key), type(message)):
            kind = type(message).__name__
            self._say_once(peer, f"may not send {kind}: its key {key.decode()} is not authorized for that")
            self._send(peer, Refused(f"this key is not authorized for {kind}; see authorized_keys there"))
            return
        if isinstance(message, Register):
            self._register(peer, message)
        elif isinstance(message, Submit):
            self._submit(peer, message)
        elif isinstance(message, Attach) and message.version and (reason := misfit(message, self._host)):
            self._say_once(peer, f"is refused: {reason}")
            self._send(peer, Refused(reason))
        elif isinstance(message, Cancel | Attach) and not self._knows(message.job):
            self._send(peer, JobUnknown(message.job))  # no event: strangers' questions fill no journal
        elif isinstance(message, Cancel):
            self._handle(JobCancelled(message.job, "killed on request"))
        elif isinstance(message, Attach):
            self._attach(peer, message.job)
        elif isinstance(message, ListJobs):
            self._send(peer, self._jobs())
        elif isinstance(message, ListWorkers | Drain):
            self._look_after(peer, message)
        else:
            self._report(peer, message)

    def _attach(self, peer: bytes, name: str) -> None:
        """A client asks again and again; only the first time is news for the journal."""
        event = ClientAttached(peer, name)
        job = self._scheduler.jobs.get(name)
        if job is not None and peer in job.clients:
            self._commands += self._scheduler.handle(event, self._now())
        else:
            self._handle(event)

    def _misfit_of(self, frame: bytes) -> str:
        """Why the sender of what cannot be decoded does not fit, if it introduces itself."""
        try:
            return misfit_of_another_release(decode(frame, Introduction), self._host)
        except ProtocolError:
            return ""

    def _say_once(self, peer: bytes, what: str) -> None:
        if peer not in self._named and len(self._named) < NAMED_ONCE:
            self._named.add(peer)
            text = "".join(sign if sign.isprintable() else "?" for sign in what[:1000])
            print(f"zmqmr coordinator: peer {ascii(peer)[2:-1]} {text}", file=sys.stderr, flush=True)

    def _knows(self, job: str) -> bool:
        return job in self._scheduler.jobs or job in self._scheduler.ended

    def _register(self, peer: bytes, message: Register) -> None:
        if reason := misfit(message, self._host):
            self._say_once(peer, f"is refused: {reason}")
            self._send(peer, Refused(reason))
        elif peer == worker_identity(message.worker, message.epoch):
            self._send(peer, Welcome(message.epoch))
            self._handle(
                WorkerJoined(
                    message.worker,
                    message.epoch,
                    message.host,
                    message.slots,
                    message.shuffle,
                    message.version,
                    message.python,
                )
            )

    def _submit(self, peer: bytes, message: Submit) -> None:
        if reason := misfit(message, self._host):
            self._say_once(peer, f"is refused: {reason}")
            self._send(peer, Refused(reason))
            return
        if message.spec.stored and self.store is None:
            self._send(peer, Refused("it has no store of files; start it with --store tcp://HOST:PORT"))
            return
        workers = self._scheduler.workers.values()
        pythons = {worker.name: worker.python for worker in workers if worker.python}
        if warning := other_pythons(message.python, pythons):
            self._send(peer, Notice(message.spec.job, warning))
        self._handle(JobSubmitted(peer, message.spec, message.lease_seconds))

    def _jobs(self) -> JobList:
        ended = [
            JobSummary(
                job=job.job,
                state=job.state,
                reason=job.reason,
                stages=job.stages,
                files=len(job.files),
                counters=job.counters,
                seconds=job.seconds,
            )
            for job in self._scheduler.ended.values()
        ]
        running = [
            JobSummary(
                job=name,
                state="running",
                reason="",
                stages=job.progress(),
                label=job.spec.label,
                counters=tuple(job.counters),
                seconds=max(0.0, self._now() - job.began),
            )
            for name, job in self._scheduler.jobs.items()
        ]
        return JobList((*ended, *running))

    def _look_after(self, peer: bytes, message: ListWorkers | Drain) -> None:
        if isinstance(message, Drain):
            if message.worker not in self._scheduler.workers:
                self._send(peer, Refused(f"there is no worker {message.worker}; see: zmqmr workers"))
                return
            kept = WorkerKept(message.worker)
            self._handle(kept if message.cancel else WorkerDrained(message.worker))
        now = self._now()
        workers = tuple(
            WorkerInfo(
                name=worker.name,
                host=worker.host,
                slots=worker.slots,
                free=worker.free,
                state="resuming" if worker.resuming else "draining" if worker.draining else "ready",
                needed=self._scheduler.needs(worker.name),
                heard_seconds=max(0.0, now - worker.heard),
                shuffle=worker.shuffle,
                version=worker.version,
                python=worker.python,
            )
            for worker in sorted(self._scheduler.workers.values(), key=lambda worker: worker.name)
        )
        self._send(peer, WorkerList(workers))

    def _report(self, peer: bytes, message: Any) -> None:
        """A worker's report. One that is not known, or no longer, must begin anew as another epoch."""
        name = peer.partition(b":")[0].decode("ascii", "replace")
        worker = self._scheduler.workers.get(name)
        if worker is None or peer != worker_identity(name, worker.epoch):
            self._send(peer, Refused("the coordinator has given this worker up, or never knew it"))
            return
        if isinstance(message, Leave):
            self._handle(WorkerLost(name))
            return
        self._handle(Reported(name, message))
        if isinstance(message, Heartbeat):
            self._send(
                peer,
                Resync(worker.epoch, self._scheduler.restarts) if worker.resuming else Beat(worker.epoch),
            )

    def _tick(self) -> None:
        began = time.monotonic()
        if began >= self._tick_at:
            for event in self._scheduler.due(self._now()):
                self._handle(event)
            self._handle(Tick())
            if self.store is not None:
                self.store.running = frozenset(self._scheduler.jobs)
                if not self.store.is_alive():  # it has said why; started again we have one that works
                    raise RuntimeError("the thread of the store has ended")
            self._shorten_journal()
            self._notifier.alive()
            workers, jobs = len(self._scheduler.workers), len(self._scheduler.jobs)
            self._notifier.ready(f"{workers} workers, {jobs} jobs")
            took = time.monotonic() - began  # which grows with the workers and what runs on them
            self._tick_at = began + max(TICK_SECONDS, took / TICK_SHARE)

    # --- what goes out -----------------------------------------------------------------------

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Tell):
            worker = self._scheduler.workers.get(command.worker)
            if worker is None or worker.resuming:
                return  # its inventory will bring it up to date
            if not self._send(worker_identity(worker.name, worker.epoch), command.message):
                self._handle(WorkerLost(command.worker))
        elif isinstance(command, Inform):
            self._note(command.message)
            self._send(command.client, command.message)

    def _send(self, peer: bytes, message: Any) -> bool:
        """False when the peer is gone or does not read."""
        try:
            self._socket.send_multipart([peer, self._encoded(message)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True


def _is_news_only(event: Event) -> bool:
    """Whether an event only refreshes what a restart refreshes anyway; it is not journalled."""
    return isinstance(event, Tick) or (
        isinstance(event, Reported) and isinstance(event.message, Heartbeat | AttemptProgress)
    )


_FromAnyone = FromAgent | FromClient | FromOperator


def run_coordinator(coordinator: Coordinator) -> None:
    """The main function of a coordinator's process. TERM ends it in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the client's to handle

    def stop(number: int, frame: object) -> None:
        coordinator.running = False

    signal.signal(signal.SIGTERM, stop)
    coordinator.run()
