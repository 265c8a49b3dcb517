"""What happens to the scheduler, and what it says should happen. Plain data, in past tense and imperative."""

from dataclasses import dataclass
from typing import Any

from zmqmr.messages import (
    AttemptDone,
    AttemptFailed,
    AttemptProgress,
    CommitFailed,
    Committed,
    Heartbeat,
    Inventory,
    JobEnded,
    JobSpec,
    Opened,
    OpenFailed,
)

# --- events ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker registered. A name already known has restarted: what it held is gone."""

    worker: str
    epoch: int
    host: str
    slots: int
    shuffle: str
    version: str = ""
    python: str = ""


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker has not been heard, or said goodbye."""

    worker: str


@dataclass(frozen=True, slots=True)
class WorkerDrained:
    """A worker is to leave: it gets no new work but what its data needs."""

    worker: str


@dataclass(frozen=True, slots=True)
class WorkerKept:
    """A worker that was to leave is to stay: it takes work as before."""

    worker: str


@dataclass(frozen=True, slots=True)
class JobsRemembered:
    """What the events that a shortened journal no longer has said about ended jobs, the oldest first."""

    jobs: tuple[JobEnded, ...]


@dataclass(frozen=True, slots=True)
class Reported:
    """A message from a registered worker."""

    worker: str
    message: (
        Heartbeat
        | AttemptProgress
        | AttemptDone
        | AttemptFailed
        | Committed
        | CommitFailed
        | OpenFailed
        | Opened
        | Inventory
    )


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    client: bytes
    spec: JobSpec
    lease_seconds: float = 0.0  # that the client may be silent; 0: for ever


@dataclass(frozen=True, slots=True)
class JobCancelled:
    job: str
    reason: str


@dataclass(frozen=True, slots=True)
class ClientAttached:
    """A client follows a job, maybe after the coordinator or itself has started again."""

    client: bytes
    job: str


@dataclass(frozen=True, slots=True)
class CoordinatorRestarted:
    """The events before this one come from the journal. What was sent since the last of them may be
    lost: each worker is asked for its inventory, and gets nothing to do until it has answered."""


@dataclass(frozen=True, slots=True)
class AttemptSilent:
    """An attempt has shown no progress for its step's timeout."""

    job: str
    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class CommitOverdue:
    """An attempt's records have not arrived complete."""

    job: str
    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptSlow:
    """An attempt takes much longer than those of the same stage did: another may overtake it."""

    job: str
    task: str
    attempt: int


@dataclass(frozen=True, slots=True)
class WaitOver:
    """A task that was to wait before its next attempt has waited."""

    job: str
    task: str


@dataclass(frozen=True, slots=True)
class OpeningOverdue:
    """A worker has not said for long what it has kept for a job that resumes another."""

    job: str


@dataclass(frozen=True, slots=True)
class ClientMissing:
    """A job's client has been silent for its lease."""

    job: str


@dataclass(frozen=True, slots=True)
class WorkersMissing:
    """A job has waited too long for a worker."""

    job: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. Everything that is due is its own event, from `Scheduler.due`."""


Event = (
    WorkerJoined
    | WorkerLost
    | WorkerDrained
    | WorkerKept
    | JobsRemembered
    | Reported
    | JobSubmitted
    | JobCancelled
    | ClientAttached
    | CoordinatorRestarted
    | AttemptSilent
    | CommitOverdue
    | AttemptSlow
    | WaitOver
    | OpeningOverdue
    | ClientMissing
    | WorkersMissing
    | Tick
)


# --- commands --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message to a worker's agent."""

    worker: str
    message: Any


@dataclass(frozen=True, slots=True)
class Inform:
    """Send a message to a client."""

    client: bytes
    message: Any


Command = Tell | Inform
