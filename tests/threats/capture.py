"""Writes every packet of its network namespace into a file until it is ended: `capture.py FILE`."""

import socket
import sys

ALL_PROTOCOLS = 0x0003


def main() -> None:
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(ALL_PROTOCOLS)) as sniffer,
        open(sys.argv[1], "wb", buffering=0) as file,
    ):
        sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024**2)
        print("ready", flush=True)
        while True:
            file.write(sniffer.recv(2**18))


if __name__ == "__main__":
    main()
