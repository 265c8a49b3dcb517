"""A client's words to its coordinator."""

import pytest
import zmq

from zmqmr.client.follow import Follower
from zmqmr.errors import CoordinatorUnreachable


@pytest.mark.parametrize("word", ["attach", "cancel"])
def test_what_a_coordinator_that_has_refused_us_takes_no_more_ends_with_its_reason(word: str) -> None:
    def check() -> None:
        raise CoordinatorUnreachable("it does not know our key")

    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.set(zmq.SNDTIMEO, 20)  # with no connection left, as after a refusal
        follower = Follower(socket, "job", check, lambda _: None)
        with pytest.raises(CoordinatorUnreachable, match="does not know our key"):
            getattr(follower, word)()
