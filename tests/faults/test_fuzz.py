"""Row F16 and threat T4: hostile frames of every kind at the sockets of a running job.

`make fuzz` sends a million.
"""

import random
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from zmqmr.errors import ProtocolError
from zmqmr.messages import FromAgent, FromClient, ToAgent, ToClient, decode, encode
from zmqmr.net.frames import CorruptFrame, FrameHeader, unpack

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def frames() -> object:
    """The module that draws the frames."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        import fuzz_frames
    finally:
        sys.path.remove(str(SCRIPTS))
    return fuzz_frames


@pytest.mark.parametrize("seed", [1, random.SystemRandom().randrange(10**6)], ids=["1", "drawn"])
@pytest.mark.parametrize("where", [[], ["--tcp"]], ids=["one machine", "over tcp with keys"])
def test_f16_ten_thousand_frames_harm_neither_the_job_nor_its_processes(where: list[str], seed: int) -> None:
    command = [sys.executable, str(SCRIPTS / "fuzz.py"), "--count", "10000", "--seed", str(seed), *where]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "output and counters exact" in ended.stdout


@pytest.mark.parametrize("seed", range(3))
def test_t4_a_decoder_gives_a_message_or_a_protocol_error(frames: object, seed: int) -> None:
    mutator = frames.Mutator(seed)  # type: ignore[attr-defined]
    for _ in range(4000):
        for frame in mutator.parts():
            for union in (FromAgent, FromClient, ToAgent, ToClient, FrameHeader):
                try:
                    assert type(decode(frame, union)) in (get_args(union) or (union,))
                except ProtocolError:
                    pass
        try:
            unpack(mutator.shuffle_parts())
        except (ProtocolError, CorruptFrame):
            pass


def test_t4_every_message_is_drawn_and_understood(frames: object) -> None:
    mutator = frames.Mutator(5)  # type: ignore[attr-defined]
    for union in (FromAgent, FromClient, ToAgent, ToClient):
        for kind in get_args(union):
            message = mutator.message(kind)
            assert type(decode(encode(message), union)) is kind


@pytest.mark.parametrize("name", ["..", ".", "a\n", "", "a/b", "a" * 201, "a\0"])
def test_t8_a_name_that_would_be_another_path_is_no_name(name: str) -> None:
    frame = encode({"type": "Cancel", "job": name})
    with pytest.raises(ProtocolError):
        decode(frame, FromClient)
    with pytest.raises(ProtocolError):
        decode(encode((name, 0, "map-0-00000", 1, 0, 0, 0)), FrameHeader)
