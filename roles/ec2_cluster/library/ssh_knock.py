#!/usr/bin/python
"""Says which hosts answer as ssh servers do, all asked at once."""

DOCUMENTATION = r"""
module: ssh_knock
short_description: Tell hosts whose ssh server answers from those that are silent
description:
  - Connects to all hosts at once, and again until each has answered or has had its time. Nobody logs in.
options:
  hosts:
    description:
      - The hosts, each with its C(id), its C(address), and C(launched), the time of its launch in ISO 8601.
    type: list
    elements: dict
    required: true
  boot_seconds:
    description: How long after its launch a host may be silent.
    type: int
    required: true
  silent_seconds:
    description: How long a host may be silent that was launched long ago.
    type: int
    required: true
"""
RETURN = r"""
silent:
  description: The ids of the hosts that did not answer.
  returned: always
  type: list
  elements: str
"""

import asyncio  # noqa: E402  Ansible wants the documentation first
from datetime import datetime, timezone  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

_PORT = 22
_ANSWER_SECONDS = 5
_PAUSE_SECONDS = 1
_AT_ONCE = 200  # connections; so a thousand hosts that are off take 25 seconds longer than one


async def answers(address):
    """Whether an ssh server says its name there. No address at all would be this machine's own."""
    if not address:
        return False
    try:
        words = await asyncio.wait_for(first_words(address), _ANSWER_SECONDS)
    except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
        return False
    return words == b"SSH-"


async def first_words(address):
    """The first four bytes that a server sends. OSError, IncompleteReadError."""
    reader, writer = await asyncio.open_connection(address, _PORT)
    try:
        return await reader.readexactly(4)
    finally:
        writer.transport.abort()


def patience(launched, boot_seconds, silent_seconds, now):
    """For how many seconds a host is asked that was launched at a time in ISO 8601. `now`: a datetime."""
    age = (now - datetime.fromisoformat(launched.replace("Z", "+00:00"))).total_seconds()
    return max(silent_seconds, boot_seconds - age)


async def knock(address, seconds, places):
    """Whether a host answers within so many seconds; it is asked at least once. `places`: a semaphore."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    while True:
        async with places:
            if await answers(address):
                return True
        if clock() > deadline:
            return False
        await asyncio.sleep(_PAUSE_SECONDS)


async def knock_at_all(addresses, times):
    """Whether each host answers within its own seconds, all counted from now."""
    places = asyncio.Semaphore(_AT_ONCE)
    return await asyncio.gather(*(knock(*each, places) for each in zip(addresses, times)))  # noqa: B905  any Python


def main():
    """Run the module."""
    options = {
        "hosts": {"type": "list", "elements": "dict", "required": True},
        "boot_seconds": {"type": "int", "required": True},
        "silent_seconds": {"type": "int", "required": True},
    }
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    hosts, now = module.params["hosts"], datetime.now(timezone.utc)
    times = [
        patience(host["launched"], module.params["boot_seconds"], module.params["silent_seconds"], now)
        for host in hosts
    ]
    heard = asyncio.run(knock_at_all([host["address"] for host in hosts], times))
    silent = [host["id"] for host, answered in zip(hosts, heard) if not answered]  # noqa: B905  any Python
    module.exit_json(changed=False, silent=silent)


if __name__ == "__main__":
    main()
