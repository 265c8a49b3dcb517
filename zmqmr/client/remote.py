"""A job on a cluster: its files go to the coordinator's store, it is followed, its output comes back.

Neither the coordinator nor a worker can read a file of this machine, nor this machine one of theirs.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import Any

import msgspec

from zmqmr.client.cluster import Cluster
from zmqmr.client.endings import log
from zmqmr.client.follow import Follower, OnMessage, client_identity
from zmqmr.client.texts import size_words
from zmqmr.client.tunnel import Tunnel
from zmqmr.data.outputs import TEMPORARY
from zmqmr.data.pushing import SplitBlob, push_splits
from zmqmr.errors import CoordinatorUnreachable, Corrupt, OutOfDisk, SpillError
from zmqmr.messages import (
    Attach,
    JobEnded,
    JobList,
    JobSpec,
    ListJobs,
    Refused,
    Split,
    StoredFile,
    ToClient,
    decode,
    encode,
)
from zmqmr.net.blobs import StoreClient, store_client
from zmqmr.net.curve import Keys, load_keys
from zmqmr.net.gate import Refusal
from zmqmr.net.sockets import context, control_client
from zmqmr.settings import Settings
from zmqmr.store_messages import Blob

FIRST_SECONDS = 10.0  # for a coordinator that never answered
PATIENCE_SECONDS = 120.0  # for one that did, while its connection is lost
SILENT_SECONDS = 5.0  # then another connection is tried
SAY_SECONDS = 10.0  # between two words about a transfer
PUSHED_TOGETHER = 32  # splits, so that the store is asked once for many
_POLL_MILLISECONDS = 200


class _Silent(CoordinatorUnreachable):
    """The connection is of no use any more; another one may be."""


class RemoteCluster:
    """A connection to a cluster, for one job; use it as a context."""

    def __init__(self, cluster: Cluster, settings: Settings, job: str = ""):
        self.name = cluster.name
        self._cluster, self._settings, self._job = cluster, settings, job
        self._stack = ExitStack()
        self._tunnel: Tunnel | None = None
        self._heard = 0.0  # when the coordinator last said something; 0.0: never
        self._silent_since = 0.0  # when this connection, or the last word on it, began
        self._lost_since = 0.0  # since when there was no word on any
        self._refusal: Refusal | None = None
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
        it is to be submitted. InputError as in `read_blocks`, SpillError when the store has no room."""
        self._greet()
        size = os.path.getsize(spec.bundle)
        with self._store() as store:
            self._push_bundle(store, spec, size)
            splits = self._push_inputs(store, spec) if inputs else spec.splits
        return msgspec.structs.replace(spec, stored=True, bundle="", bundle_bytes=size, splits=splits)

    def _greet(self) -> None:
        """Have a word from the coordinator before anything is sent: it may not be there, or refuse us."""
        with self._control() as socket:
            socket.send(encode(Attach(self._job)))
            while not socket.poll(_POLL_MILLISECONDS):
                with suppress(_Silent):
                    self._check()
            self._note(socket.recv())

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
        say = _Now(SAY_SECONDS)
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
            log.info("pushed %s; %s were there already", size_words(done - there), size_words(there))
        return tuple(splits)

    @staticmethod
    def _push_split(store: StoreClient, source: SplitBlob) -> None:
        store.put(source.blob, source.read)

    @contextmanager
    def _store(self) -> Iterator[StoreClient]:
        endpoint = self._tunnel.store if self._tunnel is not None else self._cluster.store
        client = StoreClient(
            lambda: store_client(self._context, endpoint, self._newest_keys()),
            self._job,
            PATIENCE_SECONDS if self._heard else FIRST_SECONDS,
            self._keep_tunnel,
        )
        try:
            yield client
        finally:
            client.close()

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
            self._follow(lambda follower: follower.submit(spec), on_message, cancels=False)

    def cancel(self) -> JobEnded | None:
        """Kill the job; None when its end was not heard."""
        with self._control() as socket:
            return Follower(socket, self._job, self._check, self._note).cancel()

    def jobs(self) -> JobList:
        """The jobs that the coordinator knows."""
        with self._control() as socket:
            socket.send(encode(ListJobs()))
            while not socket.poll(_POLL_MILLISECONDS):
                self._check()
            answer = decode(socket.recv(), ToClient)
            if not isinstance(answer, JobList):
                reason = answer.reason if isinstance(answer, Refused) else "it says something else"
                raise CoordinatorUnreachable(f"the coordinator of {self.name} refuses: {reason}")
            return answer

    def _follow(self, begin: Callable[[Follower], None], on_message: OnMessage, *, cancels: bool) -> JobEnded:
        def heard(message: Any) -> None:
            self._note(message)
            on_message(message)

        while True:
            with self._control() as socket:
                follower = Follower(socket, self._job, self._check, heard)
                begin(follower)
                try:
                    return follower.wait(cancels=cancels)
                except _Silent:
                    log.debug("no word from the coordinator; connecting again")
                except CoordinatorUnreachable:
                    if not self._has_new_keys():
                        raise
                    log.info("the cluster %s has new keys; connecting again", self.name)

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
        if self._heard and self._lost_since and time.monotonic() - self._lost_since > SILENT_SECONDS:
            log.warning("the connection to the cluster %s is there again", self.name)
        self._heard = self._silent_since = time.monotonic()
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
        if now - self._lost_since > (PATIENCE_SECONDS if self._heard else FIRST_SECONDS):
            how = f": {reason}" if reason else "; does it run there?"
            again = f"; follow the job with: zmqmr attach {self._job} --cluster {self.name}"
            raise CoordinatorUnreachable(
                f"the coordinator of {self.name} does not answer{how}{again if self._heard else ''}"
            )
        raise _Silent(f"the connection to the cluster {self.name} is lost")

    def _keep_tunnel(self) -> None:
        self._check_tunnel()

    def _check_tunnel(self) -> str:
        """Start ssh again if it has ended; why it had."""
        return self._tunnel.check() if self._tunnel is not None else ""

    # --- files from the cluster --------------------------------------------------------------

    def fetch(self, files: Iterable[StoredFile], output: str, steps: str = "") -> None:
        """Get the job's output: the parts into the directory `output`, those of each step below `steps`. A
        file has its name when it is whole and checked. SpillError when it cannot be written."""
        places = {"output": output, "steps": steps}
        wanted = [file for file in files if places[file.name.partition("/")[0]]]
        _check_room(wanted, places)
        say, total = _Now(SAY_SECONDS), sum(file.size for file in wanted)
        with self._store() as store:
            for file in wanted:
                _fetch_file(store, file, places)
                if say.due():
                    log.info("fetched %s of %s of output", size_words(store.moved), size_words(total))

    def release(self, output: Iterable[StoredFile]) -> None:
        """The job's files are not needed on the cluster any longer, and its output by nobody."""
        with self._store() as store:
            store.release(file.sha256 for file in output)


class _Taken(Exception):
    """The coordinator has the job."""


class _Now:
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


def _check_room(files: list[StoredFile], places: Mapping[str, str]) -> None:
    for place, directory in places.items():
        size = sum(file.size for file in files if file.name.startswith(f"{place}/"))
        if directory and size > shutil.disk_usage(directory).free:
            raise OutOfDisk(
                f"the output has {size_words(size)}, and there is less room in {directory};"
                " make room, or give another --output-dir",
                directory,
            )


def _fetch_file(store: StoreClient, file: StoredFile, places: Mapping[str, str]) -> None:
    place, _, name = file.name.partition("/")
    path = os.path.join(places[place], name)
    aside = os.path.join(places[place], TEMPORARY, name.replace("/", "-"))
    digest = hashlib.sha256()
    try:
        for directory in (os.path.dirname(aside), os.path.dirname(path)):
            os.makedirs(directory, exist_ok=True)
        with open(aside, "wb") as out:
            for data in store.get(Blob(file.sha256, file.size)):
                digest.update(data)
                out.write(data)
        if digest.hexdigest() != file.sha256:
            raise Corrupt(
                f"the output file {name} arrived damaged; fetch it again, or run the job again", path
            )
        os.replace(aside, path)
    except OSError as error:
        kind = OutOfDisk if error.errno in (errno.ENOSPC, errno.EDQUOT) else SpillError
        raise kind(f"cannot write {path}: {error.strerror}", path) from error
