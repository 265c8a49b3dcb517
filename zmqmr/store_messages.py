"""Messages of the coordinator's store: blobs, named by the sha256 of their bytes, in bounded chunks.

Whoever puts or gets a blob asks for each chunk, so the store never sends, and never holds, more than it
granted. Every request may be sent again: the answer says how far things are.
"""

from typing import Annotated

from msgspec import Meta

from zmqmr.messages import Count, Message, Refused, Sha256, Struct, Text

CHUNK_BYTES = 1024**2  # of a blob in one message
ASK_BLOBS = 1000  # in one question
MAX_WINDOW = 8  # chunks of one transfer on their way

Job = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_:-][A-Za-z0-9._:-]{0,199}\Z")]  # the name of a directory


class Blob(Struct, frozen=True, array_like=True):
    """What a blob is called, and its size in bytes."""

    sha256: Sha256
    size: Count


class Ask(Message, frozen=True):
    """Which of these does the store hold whole? Those it holds are kept for the job."""

    job: Job
    blobs: Annotated[tuple[Blob, ...], Meta(max_length=ASK_BLOBS)]


class Offer(Message, frozen=True):
    """A blob is about to be put; answered by Taken (go on from there), Wait or Denied."""

    job: Job
    blob: Blob


class Put(Message, frozen=True):
    """The bytes of an offered blob from `offset` on; answered by Taken or Denied."""

    job: Job
    sha256: Sha256
    offset: Count
    data: Annotated[bytes, Meta(max_length=CHUNK_BYTES)]


class Get(Message, frozen=True):
    """Send the chunk at `offset`; answered by Chunk or Absent, as soon as the store may send.

    `received`: how many chunks this peer has had so far, over all of its blobs."""

    sha256: Sha256
    offset: Count
    received: Count


class Got(Message, frozen=True):
    """This peer has had so many chunks, and asks for no more now. Not answered."""

    received: Count


class Release(Message, frozen=True):
    """The job's blobs are not needed any longer, those of `drop` by no later job; answered by Released."""

    job: Job
    drop: Annotated[tuple[Sha256, ...], Meta(max_length=ASK_BLOBS)] = ()


class Doubt(Message, frozen=True):
    """What came as this blob is not what its name says: look at it, and drop it if so, that it can be put
    again. Not answered."""

    sha256: Sha256


ToStore = Ask | Offer | Put | Get | Got | Release | Doubt


class Holds(Message, frozen=True):
    """Those of an Ask's blobs that the store holds whole."""

    blobs: tuple[Sha256, ...]


class Taken(Message, frozen=True):
    """The store has the first `bytes` of the blob; at its size, all of it, verified. The peer may have
    `window` chunks on their way."""

    sha256: Sha256
    bytes: Count
    window: Annotated[int, Meta(ge=1, le=MAX_WINDOW)]


class Wait(Message, frozen=True):
    """Too many blobs are on their way: offer it again in a moment."""

    sha256: Sha256


class Denied(Message, frozen=True):
    """The store does not take the blob; `full`: its drive is full, another time it may."""

    sha256: Sha256
    reason: Text
    full: bool = False


class Chunk(Message, frozen=True):
    """Bytes of a blob from `offset` on."""

    sha256: Sha256
    offset: Count
    data: Annotated[bytes, Meta(max_length=CHUNK_BYTES)]


class Absent(Message, frozen=True):
    """The store does not hold the blob."""

    sha256: Sha256


class Released(Message, frozen=True):
    job: Job


FromStore = Holds | Taken | Wait | Denied | Chunk | Absent | Released | Refused
