"""Names for jobs that are safe in messages, in paths and on terminals."""

import hashlib
import re

LAST = "last"  # where a job's id is expected: the newest job
MAX_ID = 200  # characters: what messages.Name takes
_UNSAFE = re.compile(r"[^A-Za-z0-9._:-]")
_DIGEST = 8  # characters of the key's digest in a changed id


def job_id(key: str) -> str:
    """The job id for a job key of mrjob (label.owner.date.time.microseconds).

    A key that is safe already is its own id. In any other, unsafe characters become "-", the start
    is cut so that date and time stay, and a digest of the key keeps two different keys apart.
    """
    if key and len(key) <= MAX_ID and not _UNSAFE.search(key) and key[0] not in ".-":
        return key
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    safe = _UNSAFE.sub("-", key)[-(MAX_ID - len(digest) - 1) :].lstrip(".-")
    return f"{safe}.{digest}" if safe else digest
