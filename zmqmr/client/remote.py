"""A job on a cluster: its files go to the coordinator's store, it is followed, its output comes back.

Neither the coordinator nor a worker can read a file of this machine, nor this machine one of theirs.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import Any

import msgspec

from zmqmr.client.cluster import Cluster
from zmqmr.client.endings import Left, log
from zmqmr.client.follow import Follower, OnMessage, client_identity, greeting, submission
from zmqmr.client.texts import size_words
from zmqmr.client.tunnel import Tunnel
from zmqmr.data.pushing import SplitBlob, push_splits
from zmqmr.errors import CoordinatorUnreachable, ProtocolError, SpillError, ZmqmrError
from zmqmr.messages import (
    JobEnded,
    JobList,
    JobSpec,
    ListJobs,
    Refused,
    Split,
    ToClient,
    decode,
    encode,
)
from zmqmr.net.blobs import StoreClient, store_client
from zmqmr.net.curve import Keys, load_keys
from zmqmr.net.gate import Refusal
from zmqmr.net.sockets import context, control_client, sent
from zmqmr.settings import Settings
from zmqmr.store_messages import Blob

FIRST_SECONDS = 10.0  # for a coordinator that never answered
PATIENCE_SECONDS = 120.0  # for one that did, while its connection is lost
SILENT_SECONDS = 5.0  # then another connection is tried
KILL_SECONDS = 10.0  # for the coordinator to hear that a job is to be killed
RELEASE_SECONDS = 10.0  # for the store to hear that files are not needed; it finds out by itself, later
SAY_SECONDS = 10.0  # between two words about a transfer
PUSHED_TOGETHER = 32  # splits, so that the store is asked once for many
_POLL_MILLISECONDS = 200


class _Silent(CoordinatorUnreachable):
    """The connection is of no use any more; another one may be."""


class RemoteCluster:
    """A connection to a cluster, for one job, which may be named later; use it as a context."""

    def __init__(self, cluster: Cluster, settings: Settings, job: str = ""):
        self.name = cluster.name
        self.job = job
        self._cluster, self._settings = cluster, settings
        self._stack = ExitStack()
        self._tunnel: Tunnel | None = None
        self.heard = False  # whether the coordinator has ever said something
        self.pushing = False  # whether files are on their way to it, or there
        self.killed: JobEnded | None = None  # the end of the job, after an interrupt
        self._silent_since = 0.0  # when this connection, or the last word on it, began
        self._lost_since = 0.0  # since when there was no word on any
        self._refusal: Refusal | None = None
        self._ssh_said = ""  # why ssh ended, as the user was told
        self._keys = cluster.keys

    def __enter__(self) -> "RemoteCluster":
        with ExitStack() as stack:
            if self._cluster.ssh is not None:
                self._tunnel = stack.enter_context(Tunnel(self._cluster))
            self._context = context()
            stack.callback(self._context.term)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- files to the cluster ----------------------------------------------------------------

    def push(self, spec: JobSpec, *, inputs: bool) -> JobSpec:
        """Put the job's bundle, and its `inputs` if the workers do not see them, into the store; the job as
        it is to be submitted. InputError as in `read_blocks`, SpillError when the store has no room,
        UsageError when no coordinator would take such a job."""
        submission(spec)
        self._greet(greeting(self.job))  # the coordinator may not be there, or refuse us
        self.pushing = True
        size = os.path.getsize(spec.bundle)
        with self.store() as store:
            self._push_bundle(store, spec, size)
            splits = self._push_inputs(store, spec) if inputs else spec.splits
        return msgspec.structs.replace(spec, stored=True, bundle="", bundle_bytes=size, splits=splits)

    def _greet(self, message: Any) -> None:
        answer = self._ask(message)
        if isinstance(answer, Refused):
            raise CoordinatorUnreachable(f"the coordinator of {self.name} refuses us: {answer.reason}")

    def _ask(self, message: Any) -> Any:
        """The coordinator's answer to a message; asked again over another connection while it is silent."""
        while True:
            with self._control() as socket, suppress(_Silent):
                if not sent(socket, encode(message)):
                    self._check()
                    continue
                while not socket.poll(_POLL_MILLISECONDS):
                    self._check()
                self._note(message)
                return self._decoded(socket.recv())

    def _decoded(self, frame: bytes) -> Any:
        try:
            return decode(frame, ToClient)
        except ProtocolError as error:
            raise CoordinatorUnreachable(
                f"the coordinator of {self.name} has another release of zmqmr, install the same: {error}"
            ) from error

    def _push_bundle(self, store: StoreClient, spec: JobSpec, size: int) -> None:
        blob = Blob(spec.bundle_sha256, size)
        if store.missing([blob]):
            log.info("pushing the job's files, %s, to the cluster %s", size_words(size), self.name)
            with open(spec.bundle, "rb", buffering=0) as file:
                store.put(blob, lambda offset, length: os.pread(file.fileno(), length, offset))

    def _push_inputs(self, store: StoreClient, spec: JobSpec) -> tuple[Split, ...]:
        pieces = [piece for split in spec.splits for piece in split.pieces]
        files = {piece.file.path: piece.file.size for piece in pieces}
        total = sum(files.values())
        if files:
            many = f"{len(files)} input files" if len(files) > 1 else "1 input file"
            log.info("pushing %s, %s, to the cluster %s", many, size_words(total), self.name)
        splits: list[Split] = []
        done = 0
        say = Now(SAY_SECONDS)
        pushed = push_splits(spec.splits)
        while some := list(islice(pushed, PUSHED_TOGETHER)):
            splits += [split for split, _ in some]
            sources = {each.blob: each for _, each in some if each is not None}
            for blob in store.missing(sources):
                self._push_split(store, sources[blob])
            done += sum(blob.size for blob in sources)
            if say.due():
                log.info("pushed %s of %s", size_words(done), size_words(total))
        if files:
            there = max(0, done - store.moved)
            again = f"; {size_words(total - done)} were repetitions" if total > done else ""
            log.info("pushed %s; %s were there already%s", size_words(done - there), size_words(there), again)
        return tuple(splits)

    @staticmethod
    def _push_split(store: StoreClient, source: SplitBlob) -> None:
        try:
            store.put(source.blob, source.read)
        except SpillError as error:
            source.check_unchanged()
            raise error

    @contextmanager
    def store(self, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[StoreClient]:
        """A connection to the store. CoordinatorUnreachable when it is silent for longer."""
        endpoint = self._tunnel.store if self._tunnel is not None else self._cluster.store
        client = StoreClient(
            lambda: store_client(self._context, endpoint, self._newest_keys()),
            self.job,
            patience_seconds if self.heard else FIRST_SECONDS,
            self._keep_tunnel,
        )
        try:
            yield client
        finally:
            client.close()

    def release(self, output: Iterable[str] = ()) -> None:
        """Tell the store that the job's files are not needed any longer, and the blobs `output` by nobody.
        Without an answer for a while it is left to find out by itself."""
        with suppress(ZmqmrError), self.store(RELEASE_SECONDS) as store:
            store.release(output)

    # --- the job -----------------------------------------------------------------------------

    def run(self, spec: JobSpec, on_message: OnMessage) -> JobEnded:
        """Submit a job and follow it to its end. KeyboardInterrupt kills it first. If this process dies,
        the cluster kills it when the lease is over. CoordinatorUnreachable when the connection is lost for
        long."""
        lease = self._settings.client_lease_seconds
        return self._follow(lambda follower: follower.submit(spec, lease), on_message, cancels=True)

    def attach(self, on_message: OnMessage) -> JobEnded:
        """Follow a job that runs, or has ended, to its end. An interrupt leaves it alone."""
        return self._follow(Follower.attach, on_message, cancels=False)

    def submit(self, spec: JobSpec) -> None:
        """Submit a job that goes on without a client; returns when the coordinator has it."""

        def on_message(_: Any) -> None:
            raise _Taken

        with suppress(_Taken):
            self._follow(lambda follower: follower.submit(spec), on_message, cancels=True)

    def cancel(self) -> JobEnded | None:
        """Kill the job; None when its end was not heard."""
        deadline = time.monotonic() + KILL_SECONDS
        while time.monotonic() < deadline:
            with self._control() as socket, suppress(_Silent):
                return Follower(socket, self.job, self._check, self._note).cancel()
        return None

    def jobs(self) -> JobList:
        """The jobs that the coordinator knows."""
        self._greet(greeting("any", runs=False))  # of another release it says so
        answer = self._ask(ListJobs())
        if not isinstance(answer, JobList):
            reason = answer.reason if isinstance(answer, Refused) else "it says something else"
            raise CoordinatorUnreachable(f"the coordinator of {self.name} refuses: {reason}")
        return answer

    def _follow(self, begin: Callable[[Follower], None], on_message: OnMessage, *, cancels: bool) -> JobEnded:
        """Follow the job to its end, over as many connections as that takes. If an interrupt `cancels` the
        job, its end is awaited before it is raised again; one that comes meanwhile raises Left."""
        try:
            return self._followed(begin, on_message)
        except KeyboardInterrupt:
            if not cancels:
                raise
            try:
                self._kill()
            except KeyboardInterrupt:
                raise Left(self.job) from None
            raise

    def _followed(self, begin: Callable[[Follower], None], on_message: OnMessage) -> JobEnded:
        def heard(message: Any) -> None:
            self._note(message)
            on_message(message)

        while True:
            with self._control() as socket:
                follower = Follower(socket, self.job, self._check, heard)
                begin(follower)
                try:
                    return follower.wait(cancels=False)
                except _Silent:
                    log.debug("no word from the coordinator; connecting again")
                except CoordinatorUnreachable:
                    if not self._has_new_keys():
                        raise
                    log.info("the cluster %s has new keys; connecting again", self.name)

    def _kill(self) -> None:
        log.info("killing the job; interrupt again to leave at once")
        with suppress(CoordinatorUnreachable):
            self.killed = self.cancel()
        if self.killed is None:
            log.warning(
                "the cluster was not heard: the job may go on there until it has missed its client for"
                " %.0f seconds; zmqmr kill %s --cluster %s ends it",
                self._settings.client_lease_seconds,
                self.job,
                self.name,
            )

    @contextmanager
    def _control(self) -> Iterator[Any]:
        """A new connection, with a name of its own: the coordinator may still believe in the last one."""
        endpoint = self._tunnel.control if self._tunnel is not None else self._cluster.control
        keys = self._newest_keys()
        socket = control_client(self._context, endpoint, client_identity(), self._settings, keys)
        self._refusal = Refusal(socket)
        self._silent_since = time.monotonic()
        self._lost_since = self._lost_since or self._silent_since
        try:
            yield socket
        finally:
            self._refusal.close()
            socket.close(linger=1000)  # the last word may be that the job is to be killed

    def _newest_keys(self) -> Keys | None:
        """Our keys, read anew: they may have been exchanged while the job runs."""
        if self._keys is not None:
            self._keys = load_keys(self._keys.directory, self._keys.role, self._keys.authorized.path)
        return self._keys

    def _has_new_keys(self) -> bool:
        """Whether our key was exchanged after the last connection was made."""
        before = self._keys
        after = self._newest_keys()
        return before is not None and after is not None and after.public != before.public

    def _note(self, _: Any) -> None:
        """The coordinator has said something."""
        if self.heard and self._lost_since and time.monotonic() - self._lost_since > SILENT_SECONDS:
            log.warning("the connection to the cluster %s is there again", self.name)
        self.heard, self._silent_since = True, time.monotonic()
        self._lost_since = 0.0

    def _check(self) -> None:
        """Called while the coordinator is silent."""
        if self._refusal is not None and (reason := self._refusal.seen()):
            raise CoordinatorUnreachable(f"the coordinator of {self.name} refuses us: {reason}")
        now = time.monotonic()
        if now - self._silent_since < SILENT_SECONDS:
            self._check_tunnel()
            return
        if not self._lost_since:
            self._lost_since = self._silent_since
            log.warning("the connection to the cluster %s is lost; trying again", self.name)
        reason = self._check_tunnel()
        if now - self._lost_since > (PATIENCE_SECONDS if self.heard else FIRST_SECONDS):
            raise self._unreachable(reason)
        raise _Silent(f"the connection to the cluster {self.name} is lost")

    def _unreachable(self, reason: str) -> CoordinatorUnreachable:
        """`reason`: why ssh has ended, or ""."""
        again = f"; follow the job with: zmqmr attach {self.job} --cluster {self.name}" if self.heard else ""
        if self._keys is not None and self._refusal is not None and self._refusal.is_for_its_key():
            return CoordinatorUnreachable(
                f"the coordinator of {self.name} has another key than {self._keys.directory}/coordinator.pub:"
                " somebody has exchanged the cluster's keys (rotate_keys.yml); get its folder from them"
                f"{again}"
            )
        how = f": {reason}" if reason else "; does it run there?"
        return CoordinatorUnreachable(f"the coordinator of {self.name} does not answer{how}{again}")

    def _keep_tunnel(self) -> None:
        """Called while files move."""
        self._check_tunnel()

    def _check_tunnel(self) -> str:
        """Start ssh again if it has ended; why it had."""
        reason = self._tunnel.check() if self._tunnel is not None else ""
        if reason and reason != self._ssh_said:
            self._ssh_said = reason
            log.warning("ssh to the cluster %s has ended and is started again: %s", self.name, reason)
        return reason


class _Taken(Exception):
    """The coordinator has the job."""


class Now:
    """Whether it is time to say something again."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._next = time.monotonic() + seconds

    def due(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
