"""What goes over a testbed's network, packet by packet."""

import socket
import threading
from types import TracebackType

from testbed.network import Network

_ALL_PROTOCOLS = 0x0003
_PACKET_BYTES = 65536


class Capture:
    """Every packet at every port of the bridge while the context lasts, as `packets`."""

    def __init__(self, network: Network) -> None:
        self.packets: list[bytes] = []
        with network.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024**2)
        self._socket.settimeout(0.2)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Capture":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while not self._ending.is_set():
            try:
                self.packets.append(self._socket.recv(_PACKET_BYTES))
            except TimeoutError:
                pass  # look whether it ends
