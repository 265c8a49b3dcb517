"""The coordinator's shell: frames become events, commands become frames, time passes. It decides nothing."""

import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any

import zmq

from zmqmr import __version__
from zmqmr.coordinator.journal import Journal
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
    WorkerJoined,
    WorkerLost,
)
from zmqmr.core.scheduler import Scheduler
from zmqmr.errors import ProtocolError
from zmqmr.messages import (
    PROTOCOL,
    Attach,
    AttemptProgress,
    Beat,
    Cancel,
    FromAgent,
    FromClient,
    Heartbeat,
    JobUnknown,
    Refused,
    Register,
    Resync,
    Submit,
    Welcome,
    decode,
    encode,
)
from zmqmr.net.sockets import context, control_server, worker_identity
from zmqmr.settings import Settings

TICK_SECONDS = 0.1
FRAMES_A_TURN = 256


class Coordinator:
    """One coordinator process. Peers that send what is not a message are ignored."""

    def __init__(
        self,
        endpoint: str,
        settings: Settings,
        lifeline: int | None,
        journal: str,
        note: Callable[[Any], None],
    ):
        """`lifeline`: a descriptor that closes when the coordinator must end. `journal`: its path; what it
        holds is taken up again. `note`: is told whatever clients are told."""
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
        self._replay()
        self._socket = control_server(self._context, endpoint)
        self._lifeline = lifeline

    def run(self) -> None:
        """Serve until the lifeline closes or TERM comes."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        if self._lifeline is not None:
            poller.register(self._lifeline, zmq.POLLIN)
        try:
            while self.running:
                timeout = max(0.0, self._tick_at - time.monotonic())
                ready = dict(poller.poll(int(timeout * 1000) + 1))
                self._take_frames()
                self._tick()
                self._carry_out_all()
                self.running = self.running and self._lifeline not in ready
        finally:
            self._socket.close(linger=100)
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
        if count:
            self._later = max(0.0, last - time.monotonic())
            self._handle(CoordinatorRestarted())

    def _handle(self, event: Event) -> None:
        """Decide about an event. Its commands wait until it is in the journal."""
        now = self._now()
        self._commands += self._scheduler.handle(event, now)
        if not _is_news_only(event):
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
            self._unwritten = []
            self._journal_is_behind = False

    # --- what comes in -----------------------------------------------------------------------

    def _take_frames(self) -> None:
        for _ in range(FRAMES_A_TURN):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(parts) == 2:
                self._receive(*parts)

    def _receive(self, peer: bytes, frame: bytes) -> None:
        try:
            message = decode(frame, _FromAnyone)
        except ProtocolError as error:
            if peer.startswith(b"client:"):
                self._send(peer, Refused(str(error)))
            return
        if isinstance(message, Register):
            self._register(peer, message)
        elif isinstance(message, Submit):
            self._submit(peer, message)
        elif isinstance(message, Cancel | Attach) and not self._knows(message.job):
            self._send(peer, JobUnknown(message.job))  # no event: strangers' questions fill no journal
        elif isinstance(message, Cancel):
            self._handle(JobCancelled(message.job, "killed on request"))
        elif isinstance(message, Attach):
            self._handle(ClientAttached(peer, message.job))
        else:
            self._report(peer, message)

    def _knows(self, job: str) -> bool:
        return job in self._scheduler.jobs or job in self._scheduler.ended

    def _register(self, peer: bytes, message: Register) -> None:
        if message.protocol != PROTOCOL:
            theirs = f"{message.worker} on {message.host} has zmqmr {message.version}"
            self._send(peer, Refused(f"{theirs}, the coordinator {__version__}"))
        elif peer == worker_identity(message.worker, message.epoch):
            self._send(peer, Welcome(message.epoch))
            self._handle(
                WorkerJoined(message.worker, message.epoch, message.host, message.slots, message.shuffle)
            )

    def _submit(self, peer: bytes, message: Submit) -> None:
        if message.protocol != PROTOCOL:
            self._send(
                peer, Refused(f"the client has zmqmr {message.version}, the coordinator {__version__}")
            )
        else:
            self._handle(JobSubmitted(peer, message.spec))

    def _report(self, peer: bytes, message: Any) -> None:
        """A worker's report. One that is not known, or no longer, must begin anew as another epoch."""
        name = peer.partition(b":")[0].decode("ascii", "replace")
        worker = self._scheduler.workers.get(name)
        if worker is None or peer != worker_identity(name, worker.epoch):
            self._send(peer, Refused("the coordinator has given this worker up, or never knew it"))
            return
        self._handle(Reported(name, message))
        if isinstance(message, Heartbeat):
            self._send(peer, Resync(worker.epoch) if worker.resuming else Beat(worker.epoch))

    def _tick(self) -> None:
        if time.monotonic() >= self._tick_at:
            self._tick_at = time.monotonic() + TICK_SECONDS
            for event in self._scheduler.due(self._now()):
                self._handle(event)
            self._handle(Tick())

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
            self._socket.send_multipart([peer, encode(message)], zmq.NOBLOCK)
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


_FromAnyone = FromAgent | FromClient


def run_coordinator(coordinator: Coordinator) -> None:
    """The main function of a coordinator's process. TERM ends it in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the client's to handle

    def stop(number: int, frame: object) -> None:
        coordinator.running = False

    signal.signal(signal.SIGTERM, stop)
    coordinator.run()
