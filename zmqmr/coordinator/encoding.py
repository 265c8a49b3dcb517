"""Messages as bytes; what is told to one worker after the other is encoded once."""

from typing import Any

from zmqmr.messages import OpenJob, encode


class Encoding:
    """Remembers the last OpenJob, which has all splits of a job and goes to every worker."""

    def __init__(self) -> None:
        self._last: tuple[Any, bytes] = (None, b"")

    def __call__(self, message: Any) -> bytes:
        """The message as bytes; the same object gives the same bytes without work."""
        if not isinstance(message, OpenJob):
            return encode(message)
        if self._last[0] is not message:
            self._last = message, encode(message)
        return self._last[1]
