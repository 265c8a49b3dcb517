"""Frames are never lost between an attempt and an owner that is slow to read."""

import os
import time
from pathlib import Path

from zmqmr.net.sockets import acknowledge, context, hand_over, send_frame, shuffle_client, shuffle_server

FRAMES = 300  # many more than both high-water marks take


def _send_frames(endpoint: str) -> None:
    zmq_context = context()
    socket = shuffle_client(zmq_context, endpoint, 16, 1024)
    for number in range(FRAMES):
        send_frame(socket, [b"%d" % number], endpoint)
    hand_over(socket, endpoint)
    socket.close()
    zmq_context.term()


def test_a_sender_that_ends_at_once_loses_no_frame_to_a_receiver_at_its_high_water_mark(
    tmp_path: Path,
) -> None:
    endpoint = f"ipc://{tmp_path}/shuffle"
    sender = os.fork()  # before this process has a context
    if sender == 0:
        try:
            _send_frames(endpoint)
        finally:
            os._exit(0)
    zmq_context = context()
    server = shuffle_server(zmq_context, endpoint, 16, 1024)
    received = []
    try:
        assert server.poll(5000)
        peer, frame = server.recv_multipart()
        assert frame == b""  # it asks whether it is connected
        acknowledge(server, peer)
        time.sleep(0.3)  # the sender gets as far as it can
        while server.poll(5000):
            peer, frame = server.recv_multipart()
            if not frame:
                acknowledge(server, peer)
                break
            received.append(int(frame))
    finally:
        server.close()
        zmq_context.term()
        os.waitpid(sender, 0)

    assert received == list(range(FRAMES))
