"""A client for the tests: submits one job to a coordinator, follows it, prints its end as JSON.

A program of its own, because it must run in the network namespace of the client.
"""

import json
import os
import sys
import tempfile
import time
import uuid

import msgspec
import zmq

from zmqmr import __version__
from zmqmr.core.splits import plan_splits
from zmqmr.data.bundles import pack
from zmqmr.data.inputs import list_inputs
from zmqmr.messages import (
    Attach,
    AttemptReport,
    JobEnded,
    JobSpec,
    JobUnknown,
    Notice,
    Refused,
    Step,
    Submit,
    Substep,
    ToClient,
    decode,
    encode,
)
from zmqmr.net.curve import load_keys
from zmqmr.net.gate import Refusal
from zmqmr.net.sockets import context, control_client
from zmqmr.settings import Settings

QUIET_SECONDS = 0.5
SCRIPT = Substep("script")


def make_spec(order: dict, bundle: tuple[str, str]) -> JobSpec:
    splits = plan_splits(
        list_inputs(order["inputs"]), maps=None, split_floor_bytes=order["split"], split_bytes=order["split"]
    )
    return JobSpec(
        job=f"job.{uuid.uuid4().hex[:12]}",
        label="job",
        script="job.py",
        task_args=tuple(order["args"]),
        steps=(Step(SCRIPT, None, SCRIPT, order["partitions"], {}),),
        splits=splits,
        input_mode="lines",
        output_dir=order["output"],
        step_output_dir="",
        bundle=bundle[0],
        bundle_sha256=bundle[1],
        cmdenv={},
    )


def follow(socket, refusal, submit: bytes, job: str, deadline: float) -> dict:
    """Until the job's end, or the deadline; messages about failures and notices are kept."""
    failures, notices = [], []
    outgoing = submit
    while time.monotonic() < deadline:
        if reason := refusal.seen():
            return {"state": "refused", "reason": reason}
        if outgoing:
            try:
                socket.send(outgoing)
            except zmq.Again:
                continue
            outgoing = b""
        if not socket.poll(int(QUIET_SECONDS * 1000)):
            outgoing = encode(Attach(job))
            continue
        message = decode(socket.recv(), ToClient)
        if isinstance(message, JobEnded):
            ended = msgspec.to_builtins(message)
            return ended | {"failures": failures, "notices": notices}
        if isinstance(message, Refused):
            return {"state": "refused", "reason": message.reason}
        if isinstance(message, JobUnknown):
            outgoing = submit
        elif isinstance(message, AttemptReport):
            failures.append(f"{message.task} on {message.host}: {message.failure.reason}")
        elif isinstance(message, Notice):
            notices.append(message.text)
    return {"state": "hangs", "reason": "", "failures": failures}


def main() -> None:
    order = json.loads(sys.argv[1])
    keys = load_keys(order["keys"], "client") if order["keys"] else None
    with tempfile.TemporaryDirectory() as folder:
        spec = make_spec(order, pack({"job.py": order["job"]}, {}, folder))
        versions = order.get("versions", {})
        frame = encode(Submit(spec, __version__, host="client-host", **versions))
        zmq_context = context()
        identity = b"client:" + os.urandom(8).hex().encode()
        socket = control_client(zmq_context, order["coordinator"], identity, Settings.from_environ(), keys)
        refusal = Refusal(socket)
        deadline = time.monotonic() + order["seconds"]
        print(json.dumps(follow(socket, refusal, frame, spec.job, deadline)))
        refusal.close()
        socket.close()
        zmq_context.term()


if __name__ == "__main__":
    main()
