"""What a worker moves to and from the coordinator's store, beside the agent's loop and never in it.

Of a job that is stored a worker gets the bundle, and for each map task its split; what an attempt adds to the
job's output is put into the store before the attempt is reported done. So whatever happens to the worker
after that, a committed part is not lost.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import zmq

from zmqmr.data.bundles import unpack
from zmqmr.errors import Corrupt, SpillError
from zmqmr.messages import JobSpec, StoredFile
from zmqmr.net.blobs import Stopped, StoreClient, store_client
from zmqmr.net.curve import Keys
from zmqmr.settings import Settings
from zmqmr.store_messages import CHUNK_BYTES, Blob
from zmqmr.worker.partitions import spill_error

INPUT = "input"  # in an attempt's directory: its split


class Errand(threading.Thread):
    """Something that takes long, in a thread of its own. `fd` becomes readable when it is done; then `finish`
    it. What goes wrong in it is an error to report, never an exception of the loop's."""

    def __init__(self, work: Callable[["Errand"], Any], then: Callable[[Any, Exception | None], None]):
        """`work` is called in the thread, `then` by `finish` with its result or with its error."""
        super().__init__(daemon=True)
        self._work, self._then = work, then
        self._result: Any = None
        self._error: Exception | None = None
        self._stopping = threading.Event()
        self.moved: Callable[[], int] = lambda: 0  # bytes so far
        self.fd, self._end = os.pipe()  # closes when it is done
        self.start()

    def run(self) -> None:
        try:
            self._result = self._work(self)
        except Exception as error:  # whatever it is: without an answer the job would wait for ever
            self._error = error
        finally:
            os.close(self._end)

    def check(self) -> None:
        """To be called in the thread now and then: Stopped when nobody wants the errand any longer."""
        if self._stopping.is_set():
            raise Stopped

    def finish(self) -> None:
        """Take its result. Nothing is told of one that was stopped."""
        self._close()
        if not self._stopping.is_set():
            self._then(self._result, self._error)

    def stop(self) -> None:
        """Nobody wants it any longer; it ends soon."""
        self._stopping.set()

    def end(self) -> None:
        """Stop it and wait for that."""
        self.stop()
        self._close()

    def _close(self) -> None:
        self.join()
        os.close(self.fd)


class StoreAccess:
    """How this worker reaches the store of its coordinator."""

    def __init__(self, context: "zmq.Context[Any]", endpoint: str, keys: Keys | None, settings: Settings):
        """`context`: the agent's, whose connections all end before it does."""
        self._connect = partial(store_client, context, endpoint, keys)
        # Longer than the coordinator may be away: a worker that it does not answer ends itself.
        self._patience_seconds = 2 * settings.lease_seconds

    def client(self, job: str, errand: Errand) -> StoreClient:
        """A connection for one errand, which stops when the errand does."""
        client = StoreClient(self._connect, job, self._patience_seconds, errand.check)
        errand.moved = lambda: client.moved
        return client


def spec_here(spec: JobSpec, directory: str) -> JobSpec:
    """The specification of a job on this worker: a stored one has its bundle and output in `directory`."""
    if not spec.stored:
        return spec
    return msgspec.structs.replace(
        spec,
        bundle=os.path.join(directory, "bundle.tar"),
        output_dir=os.path.join(directory, "output"),
        step_output_dir=spec.step_output_dir and os.path.join(directory, "steps"),
    )


def unpack_bundle(spec: JobSpec, work: str, access: StoreAccess | None) -> Callable[[Errand], None]:
    """The errand that gets a job's bundle, if it is stored, and unpacks it into `work`."""

    def run(errand: Errand) -> None:
        if spec.stored:
            fetch(access, spec.job, Blob(spec.bundle_sha256, spec.bundle_bytes), spec.bundle, errand)
        unpack(spec.bundle, spec.bundle_sha256, work)

    return run


def fetch(access: StoreAccess | None, job: str, blob: Blob, path: str, errand: Errand) -> None:
    """Get a blob and check it; it is at `path` when it is whole. Corrupt when its digest is another."""
    client = _client(access, job, errand)
    part = f"{path}.part"
    digest = hashlib.sha256()
    try:
        with open(part, "wb") as file:
            for data in client.get(blob):
                digest.update(data)
                file.write(data)
        if digest.hexdigest() != blob.sha256:
            client.doubt(blob)
            raise Corrupt(f"the blob {blob.sha256} arrived damaged; run the job again", path)
        os.rename(part, path)
    except OSError as error:
        raise spill_error(error, path) from error
    finally:
        client.close()
        with suppress(OSError):
            os.unlink(part)


def put_files(
    access: StoreAccess | None, job: str, files: dict[str, str], errand: Errand
) -> tuple[StoredFile, ...]:
    """Put files (name in the output -> path) into the store; what it holds then."""
    client = _client(access, job, errand)
    try:
        return tuple(_store_one(client, name, path, errand) for name, path in files.items())
    finally:
        client.close()


def claim_files(
    access: StoreAccess | None, job: str, files: Sequence[StoredFile], errand: Errand
) -> tuple[StoredFile, ...]:
    """Have the store keep for the job what an earlier run has put there. Corrupt when some of it is gone."""
    client = _client(access, job, errand)
    try:
        lost = client.missing([Blob(file.sha256, file.size) for file in files])
    finally:
        client.close()
    if lost:
        raise Corrupt(f"the coordinator's store has not kept {lost[0].sha256}")
    return tuple(files)


def _store_one(client: StoreClient, name: str, path: str, errand: Errand) -> StoredFile:
    digest, size = hashlib.sha256(), 0
    try:
        with open(path, "rb", buffering=0) as file:
            while data := file.read(CHUNK_BYTES):
                errand.check()
                digest.update(data)
                size += len(data)
            blob = Blob(digest.hexdigest(), size)
            client.put(blob, lambda offset, length: os.pread(file.fileno(), length, offset))
    except OSError as error:
        raise spill_error(error, path) from error
    return StoredFile(name, blob.sha256, blob.size)


def _client(access: StoreAccess | None, job: str, errand: Errand) -> StoreClient:
    if access is None:
        raise SpillError(
            "this worker does not know the coordinator's store; start it with --store tcp://HOST:PORT"
        )
    return access.client(job, errand)
