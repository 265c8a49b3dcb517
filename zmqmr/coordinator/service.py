"""The coordinator's shell: frames become events, commands become frames, time passes. It decides nothing."""

import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

from zmqmr import __version__
from zmqmr.core.scheduler import (
    Command,
    Event,
    Inform,
    JobCancelled,
    JobSubmitted,
    Reported,
    Scheduler,
    Tell,
    Tick,
    WorkerJoined,
    WorkerLost,
)
from zmqmr.errors import ProtocolError
from zmqmr.messages import (
    PROTOCOL,
    Cancel,
    FromAgent,
    FromClient,
    Ping,
    Refused,
    Register,
    Submit,
    Welcome,
    decode,
    encode,
)
from zmqmr.net.sockets import context, control_server
from zmqmr.settings import Settings

TICK_SECONDS = 0.1
FRAMES_A_TURN = 256


class Coordinator:
    """One coordinator process. Peers that send what is not a message are ignored."""

    def __init__(self, endpoint: str, settings: Settings, lifeline: int | None, note: Callable[[Any], None]):
        """`lifeline`: a descriptor that closes when the coordinator must end. `note`: is told whatever
        clients are told."""
        self.settings = settings
        self._scheduler = Scheduler(
            settings.worker_timeout_seconds, settings.worker_wait_seconds, settings.max_counters
        )
        self._context = context()
        self._socket = control_server(self._context, endpoint)
        self._lifeline = lifeline
        self._peers: dict[str, bytes] = {}  # worker -> identity of its current epoch
        self._workers: dict[bytes, str] = {}  # and back
        self.running = True
        self._tick_at = 0.0
        self._note = note

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
                self.running = self.running and self._lifeline not in ready
        finally:
            self._socket.close(linger=100)
            self._context.term()

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
        except ProtocolError:
            return
        if isinstance(message, Register):
            self._register(peer, message)
        elif isinstance(message, Submit):
            self._submit(peer, message)
        elif isinstance(message, Cancel):
            self._handle(JobCancelled(message.job, "killed on request"))
        elif isinstance(message, Ping):
            pass
        elif peer in self._workers:
            self._handle(Reported(self._workers[peer], message))

    def _register(self, peer: bytes, message: Register) -> None:
        if message.protocol != PROTOCOL:
            theirs = f"{message.worker} on {message.host} has zmqmr {message.version}"
            self._send(peer, Refused(f"{theirs}, the coordinator {__version__}"))
            return
        old = self._peers.get(message.worker)
        if old is not None:
            self._workers.pop(old, None)
        self._peers[message.worker] = peer
        self._workers[peer] = message.worker
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

    def _tick(self) -> None:
        now = time.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + TICK_SECONDS
            self._handle(Tick())

    def _handle(self, event: Event) -> None:
        events: deque[Event] = deque([event])
        while events:
            for command in self._scheduler.handle(events.popleft(), time.monotonic()):
                if lost := self._carry_out(command):
                    events.append(lost)  # after the other commands: they keep their order

    def _carry_out(self, command: Command) -> WorkerLost | None:
        """The loss of the worker, when a command for it cannot be sent."""
        if isinstance(command, Tell):
            peer = self._peers.get(command.worker)
            if peer is not None and not self._send(peer, command.message):
                return WorkerLost(command.worker)
        elif isinstance(command, Inform):
            self._note(command.message)
            self._send(command.client, command.message)
        return None

    def _send(self, peer: bytes, message: Any) -> bool:
        """False when the peer is gone or does not read."""
        try:
            self._socket.send_multipart([peer, encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True


_FromAnyone = FromAgent | FromClient


def run_coordinator(coordinator: Coordinator) -> None:
    """The main function of a coordinator's process. TERM ends it in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the client's to handle

    def stop(number: int, frame: object) -> None:
        coordinator.running = False

    signal.signal(signal.SIGTERM, stop)
    coordinator.run()
