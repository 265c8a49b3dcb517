"""Records of jobs on clusters: what the cluster says of those that their client left."""

from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from zmqmr.client.records import Record, Records, bounded
from zmqmr.messages import JobEnded, JobSummary

if TYPE_CHECKING:
    from zmqmr.client.remote import RemoteCluster


def news(record: Record, there: "RemoteCluster", records: Records) -> Record:
    """The record of a job that its client left, as the cluster sees the job now; written down when that is
    over. One that the cluster has forgotten is lost."""
    found = next((job for job in there.jobs().jobs if job.job == record.job), None)
    if found is None:
        reason = f"the cluster {there.name} does not know it any longer"
        return replace(record, state="lost", reason=reason)
    record = _told(record, found)
    if found.state != "running":
        keep(record, found, records)
    return record


def keep(record: Record, ended: JobEnded | JobSummary, records: Records) -> None:
    """Write the end of a job down that its client did not see."""
    record = _told(record, ended)
    record.ended = record.begun + ended.seconds
    with suppress(OSError):
        records.write(record)


def _told(record: Record, said: JobEnded | JobSummary) -> Record:
    return replace(
        record,
        state=said.state,
        reason=said.reason,
        stages=list(said.stages),
        counters=bounded([dict(counters) for counters in said.counters]),
    )
