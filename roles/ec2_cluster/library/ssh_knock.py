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

import socket  # noqa: E402  Ansible wants the documentation first
import time  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from datetime import datetime, timezone  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

_PORT = 22
_ANSWER_SECONDS = 5
_PAUSE_SECONDS = 1
_AT_ONCE = 64


def answers(address):
    """Whether an ssh server says its name there. No address at all would be this machine's own."""
    if not address:
        return False
    try:
        with socket.create_connection((address, _PORT), _ANSWER_SECONDS) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def patience(launched, boot_seconds, silent_seconds, now):
    """For how many seconds a host is asked that was launched at a time in ISO 8601. `now`: a datetime."""
    age = (now - datetime.fromisoformat(launched.replace("Z", "+00:00"))).total_seconds()
    return max(silent_seconds, boot_seconds - age)


def knock(address, seconds):
    """Whether a host answers within so many seconds; it is asked at least once."""
    deadline = time.monotonic() + seconds
    while not answers(address):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


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
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        heard = list(pool.map(knock, [host["address"] for host in hosts], times))
    silent = [host["id"] for host, answered in zip(hosts, heard) if not answered]  # noqa: B905  any Python
    module.exit_json(changed=False, silent=silent)


if __name__ == "__main__":
    main()
