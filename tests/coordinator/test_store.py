"""The store: blobs come in chunks, are verified, are kept as long as a job needs them, and go."""

import hashlib
import os
import random
import threading
import time
from pathlib import Path

import msgspec
import pytest
from remote.cluster import until

from zmqmr.coordinator import store as store_module
from zmqmr.coordinator.store import BlobStore
from zmqmr.coordinator.store_server import TRANSFERS, StoreServer
from zmqmr.errors import CoordinatorUnreachable, Corrupt, OutOfDisk, SpillError, UsageError
from zmqmr.messages import Refused, decode, encode
from zmqmr.net.blobs import StoreClient, store_client
from zmqmr.net.sockets import context
from zmqmr.store_messages import CHUNK_BYTES, Blob, FromStore, Offer, Put, Taken, Wait

JOB = "a.job.1"


def blob_of(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


def reader(data: bytes):
    return lambda offset, length: data[offset : offset + length]


def put_whole(store: BlobStore, data: bytes, job: str = JOB) -> Blob:
    blob = blob_of(data)
    if store.offer(job, blob) < blob.size:
        assert store.put(job, blob.sha256, 0, data) == blob.size
    return blob


def later(store: BlobStore) -> None:
    """Nothing has come for a while."""
    for partial in store._coming.values():
        partial.touched -= store_module.IDLE_SECONDS + 1


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "store"), keep_seconds=100.0)


class TestFiles:
    def test_a_blob_is_there_when_all_of_it_has_come(self, store):
        data = b"abcdef"
        blob = blob_of(data)

        assert store.offer(JOB, blob) == 0
        assert store.put(JOB, blob.sha256, 0, b"abc") == 3
        assert store.size(blob.sha256) is None
        assert store.offer(JOB, blob) == 3  # a client that comes again goes on there
        assert store.put(JOB, blob.sha256, 3, b"def") == 6

        assert store.size(blob.sha256) == 6
        assert store.read(blob.sha256, 2, 3) == b"cde"
        assert store.offer(JOB, blob) == 6

    def test_an_empty_blob_is_there_when_it_is_offered(self, store):
        assert store.offer(JOB, blob_of(b"")) == 0
        assert store.size(blob_of(b"").sha256) == 0

    def test_a_chunk_out_of_turn_changes_nothing(self, store):
        blob = blob_of(b"abcdef")
        store.offer(JOB, blob)

        assert store.put(JOB, blob.sha256, 3, b"def") == 0
        assert store.put(JOB, blob.sha256, 0, b"abc") == 3
        assert store.put(JOB, blob.sha256, 0, b"abc") == 3

    def test_bytes_with_another_digest_are_refused_and_gone(self, store):
        blob = blob_of(b"abcdef")
        store.offer(JOB, blob)

        with pytest.raises(UsageError, match="another sha256"):
            store.put(JOB, blob.sha256, 0, b"abcdeX")
        assert store.size(blob.sha256) is None
        assert store.offer(JOB, blob) == 0

    def test_a_blob_longer_than_offered_is_refused(self, store):
        blob = blob_of(b"abc")
        store.offer(JOB, blob)

        with pytest.raises(UsageError, match="longer"):
            store.put(JOB, blob.sha256, 0, b"abcd")

    def test_blobs_of_a_job_stay_while_it_runs_and_for_a_while_after(self, tmp_path):
        store = BlobStore(str(tmp_path / "store"), keep_seconds=-1.0)  # whatever does not run is too old
        kept = put_whole(store, b"kept")
        put_whole(store, b"other", job="another.job")

        store.sweep({JOB})
        store.sweep({JOB})

        assert store.size(kept.sha256) == 4
        assert sorted(os.listdir(tmp_path / "store" / "blobs")) == [kept.sha256]
        store.sweep(())
        assert os.listdir(tmp_path / "store" / "blobs") == []
        assert os.listdir(tmp_path / "store" / "jobs") == []

    def test_a_released_blob_is_kept_for_another_job_that_needs_it(self, store, tmp_path):
        blob = put_whole(store, b"shared")
        assert store.claim("another.job", blob)

        store.release(JOB)
        store.sweep(())

        assert store.size(blob.sha256) == 6
        assert os.listdir(tmp_path / "store" / "jobs") == ["another.job"]

    def test_room_is_made_by_blobs_of_no_job_and_then_refused(self, tmp_path):
        store = BlobStore(str(tmp_path / "store"), keep_seconds=100.0, max_bytes=10)
        loose = put_whole(store, b"123456", job="old.job")
        store.release("old.job")

        needed = put_whole(store, b"abcdef")

        assert store.size(loose.sha256) is None
        assert store.size(needed.sha256) == 6
        with pytest.raises(OutOfDisk, match="no room for 5 bytes"):
            store.offer(JOB, blob_of(b"12345"))

    def test_what_could_not_make_enough_room_is_kept(self, tmp_path):
        store = BlobStore(str(tmp_path / "store"), keep_seconds=100.0, max_bytes=10)
        loose = put_whole(store, b"123456", job="old.job")
        store.release("old.job")

        with pytest.raises(OutOfDisk):
            store.offer(JOB, Blob("0" * 64, 11))

        assert store.size(loose.sha256) == 6

    def test_a_blob_that_nobody_goes_on_with_gives_its_room_to_another_F19(self, tmp_path):
        store = BlobStore(str(tmp_path / "store"), keep_seconds=100.0, max_bytes=10)
        store.offer(JOB, Blob("0" * 64, 8))
        with pytest.raises(OutOfDisk):
            store.offer(JOB, blob_of(b"123456"))

        later(store)
        put_whole(store, b"123456")

        assert store.put(JOB, "0" * 64, 0, b"x") is None

    def test_a_full_drive_is_refused_before_it_is_full(self, small_disk, monkeypatch):
        monkeypatch.setattr(store_module, "RESERVE_BYTES", 1024**2)
        store = BlobStore(str(small_disk / "store"), keep_seconds=100.0)

        with pytest.raises(OutOfDisk, match="its drive is full"):
            store.offer(JOB, Blob("0" * 64, 6 * 1024**2))
        put_whole(store, b"small")

    def test_a_store_that_starts_again_has_its_blobs_and_no_half_ones(self, store, tmp_path):
        whole = put_whole(store, b"whole")
        half = blob_of(b"abcdef")
        store.offer(JOB, half)
        store.put(JOB, half.sha256, 0, b"abc")

        again = BlobStore(str(tmp_path / "store"), keep_seconds=100.0)

        assert again.size(whole.sha256) == 5
        assert again.put(JOB, half.sha256, 3, b"def") is None
        assert os.listdir(tmp_path / "store" / "partial") == []
        assert again.offer(JOB, half) == 0


@pytest.fixture
def ring(tmp_path: Path):
    """A served store; ring.client() connects to it, ring.restart() kills and starts it again."""

    class Ring:
        def __init__(self):
            self.context = context()
            self.endpoint = f"ipc://{tmp_path}/store.sock"
            self.clients: list[StoreClient] = []
            self.start()

        def start(self):
            store = BlobStore(str(tmp_path / "store"), keep_seconds=100.0)
            self.server = StoreServer(self.context, self.endpoint, store, max_peers=100)
            self.server.start()

        def client(self, patience: float = 20.0) -> StoreClient:
            client = StoreClient(lambda: store_client(self.context, self.endpoint), JOB, patience)
            self.clients.append(client)
            return client

    ring = Ring()
    yield ring
    for client in ring.clients:
        client.close()
    ring.server.stop()
    ring.context.term()


def bytes_like(size: int) -> bytes:
    return random.Random(size).randbytes(size)


class TestService:
    @pytest.mark.parametrize(
        "size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 20 * CHUNK_BYTES + 7]
    )
    def test_what_is_put_is_what_others_get(self, ring, size):
        data = bytes_like(size)
        blob = blob_of(data)

        assert ring.client().missing([blob]) == [blob]
        ring.client().put(blob, reader(data))

        assert ring.client().missing([blob]) == []
        assert b"".join(ring.client().get(blob)) == data

    def test_many_put_and_get_at_a_time(self, ring):
        texts = [bytes_like(3 * CHUNK_BYTES + number % 3) for number in range(12)]
        got: list[bytes] = []

        def both(data: bytes) -> None:
            client = ring.client()
            client.put(blob_of(data), reader(data))
            got.append(b"".join(client.get(blob_of(data))))

        threads = [threading.Thread(target=both, args=(data,)) for data in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(got) == sorted(texts)

    def test_more_readers_than_chunks_that_may_be_on_their_way_are_all_served(self, ring, monkeypatch):
        monkeypatch.setattr("zmqmr.coordinator.store_server.SENDING", 3)
        data = bytes_like(4 * CHUNK_BYTES)
        blob = blob_of(data)
        ring.client().put(blob, reader(data))

        for _ in range(6):
            client = ring.client()
            assert b"".join(client.get(blob)) == data
            client.close()

    def test_clients_that_were_lost_while_they_pushed_keep_nobody_waiting_T5(self, ring):
        socket = store_client(ring.context, ring.endpoint)
        for number in range(TRANSFERS):
            socket.send(encode(Offer(JOB, Blob(f"{number:064x}", 10))))
            socket.recv()
        late = Blob("f" * 64, 10)
        socket.send(encode(Offer(JOB, late)))
        assert isinstance(decode(socket.recv(), FromStore), Wait)

        later(ring.server._store)
        socket.send(encode(Offer(JOB, late)))

        assert isinstance(decode(socket.recv(), FromStore), Taken)
        socket.close()

    def test_a_push_goes_on_where_a_lost_client_ended(self, ring):
        data = bytes_like(6 * CHUNK_BYTES)
        blob = blob_of(data)
        first = store_client(ring.context, ring.endpoint)
        first.send(encode(Offer(JOB, blob)))
        first.recv()
        for offset in (0, CHUNK_BYTES):
            first.send(encode(Put(JOB, blob.sha256, offset, data[offset : offset + CHUNK_BYTES])))
            first.recv()
        first.close()
        offsets = []

        def read(offset: int, length: int) -> bytes:
            offsets.append(offset)
            return data[offset : offset + length]

        ring.client().put(blob, read)

        assert min(offsets) == 2 * CHUNK_BYTES
        assert b"".join(ring.client().get(blob)) == data

    def test_a_push_survives_the_death_of_the_store(self, ring, monkeypatch):
        monkeypatch.setattr("zmqmr.net.blobs.SILENT_SECONDS", 0.3)
        data = bytes_like(10 * CHUNK_BYTES)
        restarted = []

        def read(offset: int, length: int) -> bytes:
            if offset == 5 * CHUNK_BYTES and not restarted:
                restarted.append(True)
                ring.server.stop()
                ring.start()
            return data[offset : offset + length]

        ring.client().put(blob_of(data), read)

        assert restarted
        assert b"".join(ring.client().get(blob_of(data))) == data

    def test_a_file_that_changes_while_it_is_put_is_refused(self, ring):
        data = bytes_like(2 * CHUNK_BYTES)

        with pytest.raises(SpillError, match="another sha256"):
            ring.client().put(blob_of(data), lambda offset, length: b"x" * length)

    def test_a_blob_that_is_not_there_is_named(self, ring):
        with pytest.raises(Corrupt, match="has lost the blob"):
            list(ring.client().get(blob_of(b"never put")))

    def test_a_store_that_is_gone_is_unreachable(self, ring):
        ring.server.stop()

        with pytest.raises(CoordinatorUnreachable, match="has not answered"):
            ring.client(patience=0.3).missing([blob_of(b"x")])
        ring.start()

    def test_garbage_harms_nobody_T4(self, ring):
        socket = store_client(ring.context, ring.endpoint)
        for junk in (b"", b"\xff" * 100, b"\x81\xa4type\xa3Put", os.urandom(10_000)):
            socket.send(junk)
        socket.send_multipart([b"a", b"b", b"c"])
        time.sleep(0.05)
        socket.close()

        assert ring.client().missing([blob_of(b"x")]) == [blob_of(b"x")]

    @pytest.mark.parametrize("job", ["..", ".", "../x", "a/b"])
    def test_a_job_is_no_path_T8(self, ring, job, tmp_path):
        client = ring.client()
        client._job = job

        with pytest.raises(SpillError, match="refuses"):
            client.put(blob_of(b"x"), reader(b"x"))

    @pytest.mark.parametrize("offset", [2**63, 2**64 - 1])
    def test_an_offset_that_no_file_has_harms_nobody_T4(self, ring, offset):
        data = b"abc"
        ring.client().put(blob_of(data), reader(data))
        socket = store_client(ring.context, ring.endpoint)
        request = {"type": "Get", "sha256": blob_of(data).sha256, "offset": offset, "received": 0}
        socket.send(msgspec.msgpack.encode(request))

        assert isinstance(decode(socket.recv(), FromStore), Refused)
        assert b"".join(ring.client().get(blob_of(data))) == data
        socket.close()

    def test_a_drive_that_fails_is_an_error_of_who_asked_and_not_the_end(self, ring, tmp_path):
        (tmp_path / "store" / "partial").rmdir()

        with pytest.raises(SpillError, match="cannot write"):
            ring.client().put(blob_of(b"x"), reader(b"x"))
        (tmp_path / "store" / "blobs").rmdir()
        with pytest.raises(SpillError, match="its drive fails"):
            ring.client().put(blob_of(b"x"), reader(b"x"))

        for name in ("partial", "blobs"):
            (tmp_path / "store" / name).mkdir()
        ring.client().put(blob_of(b"x"), reader(b"x"))

    def test_a_blob_that_is_damaged_on_the_drive_can_be_put_again_F20(self, ring, tmp_path):
        data = bytes_like(3 * CHUNK_BYTES)
        blob = blob_of(data)
        client = ring.client()
        client.put(blob, reader(data))
        with (tmp_path / "store" / "blobs" / blob.sha256).open("r+b") as file:
            file.write(b"?")
        assert b"".join(client.get(blob)) != data

        client.doubt(blob)

        until(lambda: client.missing([blob]) == [blob], "the damaged blob is still offered")
        assert list((tmp_path / "store" / "jobs" / JOB).iterdir()) == []
        client.put(blob, reader(data))
        client.doubt(blob)  # there is nothing wrong with this one
        time.sleep(0.05)
        assert b"".join(client.get(blob)) == data and client.missing([blob]) == []
