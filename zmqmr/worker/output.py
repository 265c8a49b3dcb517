"""Where a stage's chain ends: its sink, behind the combiner if it has one."""

from typing import TYPE_CHECKING, Any

from zmqmr.core.plan import plan_stages
from zmqmr.messages import FrameCount
from zmqmr.worker.combine import Combiner
from zmqmr.worker.sinks import File, Shuffle, Sink, Writer
from zmqmr.worker.stock import is_marked

if TYPE_CHECKING:
    from zmqmr.worker.attempt import Attempt


class Output:
    """Made with the first record's encoder in hand, closed when the input is exhausted."""

    def __init__(self, attempt: "Attempt"):
        self._attempt = attempt
        self._sink: Sink | None = None
        self._combiner: Combiner | None = None

    def target(self, writer: Writer | None, job: Any) -> Sink | Combiner:
        """What takes the records. `writer` encodes them; None when they come as lines. `job`: an instance
        of the job, if there is one."""
        launch, spec = self._attempt.launch, self._attempt.spec
        if self._sink is None:
            if launch.partitions:
                marked = is_marked(spec, self._attempt.job_class, plan_stages(spec)[launch.stage], job)
                self._sink = Shuffle(self._attempt, writer, marked)
            else:
                self._sink = File(self._attempt, writer)
            self._attempt.sink = self._sink
            if launch.combine:
                self._combiner = Combiner(self._attempt, launch.links[-1][0], self._sink, writer)
        return self._combiner or self._sink

    def close(self) -> tuple[FrameCount, ...]:
        """Everything has been added; what was sent to each partition."""
        if self._combiner is not None:
            self._combiner.finish()
        assert self._sink is not None
        return self._sink.close()
