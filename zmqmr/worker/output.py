"""Where a stage's chain ends: its sink, behind the combiner if it has one."""

from typing import TYPE_CHECKING

from zmqmr.messages import FrameCount
from zmqmr.worker.combine import Combiner
from zmqmr.worker.sinks import File, Shuffle, Sink, Writer

if TYPE_CHECKING:
    from zmqmr.worker.attempt import Attempt


class Output:
    """Made with the first record's encoder in hand, closed when the input is exhausted."""

    def __init__(self, attempt: "Attempt"):
        self._attempt = attempt
        self._sink: Sink | None = None
        self._combiner: Combiner | None = None

    def target(self, writer: Writer | None) -> Sink | Combiner:
        """What takes the records. `writer` encodes them; None when they come as lines."""
        launch = self._attempt.launch
        if self._sink is None:
            self._sink = Shuffle(self._attempt, writer) if launch.partitions else File(self._attempt, writer)
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
