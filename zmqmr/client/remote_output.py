"""The output of a job of a cluster: from the store into a directory, or on as it arrives."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping

from zmqmr.client.endings import log
from zmqmr.client.remote import SAY_SECONDS, Now, RemoteCluster
from zmqmr.client.texts import size_words
from zmqmr.data.decompress import CODECS, decompressed
from zmqmr.data.outputs import SKIPPED, TEMPORARY, part_names
from zmqmr.errors import Corrupt, OutOfDisk, SpillError, is_full
from zmqmr.messages import StoredFile
from zmqmr.net.blobs import StoreClient
from zmqmr.store_messages import Blob

OUTPUT = "output"  # how the names of the job's own output files begin; those of its steps: "steps"
_LEFT_OUT = f"{OUTPUT}/_{SKIPPED}/"  # ... of the files with the records that were left out


def stream(cluster: RemoteCluster, files: Iterable[StoredFile]) -> Iterator[bytes]:
    """The parts of the job's output as they arrive, in order and decompressed; b"" between two. A few chunks
    are in memory, nothing on a drive. Corrupt, after a part's bytes, when they are not what was stored."""
    known = {file.name.partition("/")[2]: file for file in files if file.name.startswith(f"{OUTPUT}/")}
    with cluster.store() as store:
        for number, name in enumerate(part_names(known)):
            if number:
                yield b""
            codec = CODECS.get(os.path.splitext(name)[1])
            blocks = _checked(store, known[name])
            yield from decompressed(blocks, codec, f"the output part {name}") if codec else blocks


def fetch_left_out(cluster: RemoteCluster, files: Iterable[StoredFile], directory: str) -> None:
    """Get the records that the job left out, as `fetch` does with its output, and nothing else."""
    fetch(cluster, [file for file in files if file.name.startswith(_LEFT_OUT)], directory)


def fetch(cluster: RemoteCluster, files: Iterable[StoredFile], output: str, steps: str = "") -> None:
    """Get the job's output: the parts into the directory `output`, those of each step below `steps`; either
    is left out when it is "". A file has its name when it is whole and checked. SpillError when it cannot be
    written."""
    places = {OUTPUT: output, "steps": steps}
    wanted = [file for file in files if places[file.name.partition("/")[0]]]
    _check_room(wanted, places)
    say, total = Now(SAY_SECONDS), sum(file.size for file in wanted)
    with cluster.store() as store:
        for file in wanted:
            _fetch_file(store, file, places)
            if say.due():
                log.info("fetched %s of %s of output", size_words(store.moved), size_words(total))


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
    try:
        for directory in (os.path.dirname(aside), os.path.dirname(path)):
            os.makedirs(directory, exist_ok=True)
        with open(aside, "wb") as out:
            out.writelines(_checked(store, file))
        os.replace(aside, path)
    except OSError as error:
        kind = OutOfDisk if is_full(error) else SpillError
        raise kind(f"cannot write {path}: {error.strerror}", path) from error


def _checked(store: StoreClient, file: StoredFile) -> Iterator[bytes]:
    """The bytes of a file; Corrupt at their end if they are not what was stored."""
    digest, blob = hashlib.sha256(), Blob(file.sha256, file.size)
    for data in store.get(blob):
        digest.update(data)
        yield data
    if digest.hexdigest() != file.sha256:
        store.doubt(blob)
        name = file.name.partition("/")[2]
        raise Corrupt(f"the output file {name} arrived damaged; run the job again", name)
