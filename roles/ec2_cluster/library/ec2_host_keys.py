#!/usr/bin/python
"""Learns the ssh host keys of instances from their consoles, and keeps them in a known_hosts file."""

DOCUMENTATION = r"""
module: ec2_host_keys
short_description: Keep a known_hosts file of EC2 instances
description:
  - Reads the host keys that cloud-init prints on an instance's console, through the EC2 API, so that the
    first ssh connection is checked like every other.
  - A key that was learned once for an instance is kept. Instances that are not named lose their lines.
  - An instance whose console shows no key in time, or cannot be read, stops nothing. What the consoles of the
    others show is written.
options:
  path:
    description: The known_hosts file.
    type: path
    required: true
  instances:
    description: The instances, each with its C(id) and the C(addresses) that ssh may use.
    type: list
    elements: dict
    required: true
  timeout_seconds:
    description: How long to wait for the consoles of all instances together.
    type: int
    default: 300
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""
RETURN = r"""
learned:
  description: The instances whose keys were learned.
  returned: always
  type: list
  elements: str
missing:
  description: The instances whose consoles show no keys, each with its C(id), the C(reason), and what the
    C(console) shows last.
  returned: always
  type: list
  elements: dict
"""

import os  # noqa: E402  Ansible wants the documentation first
import re  # noqa: E402
import time  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # AnsibleAWSModule says so
    pass

_KEYS = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
_KEY = re.compile(r"^\s*(?:\[[^\]]*\]\s*)?((?:ssh-ed25519|ecdsa-sha2-\S+) [A-Za-z0-9+/=]+)", re.MULTILINE)
_POLL_SECONDS = 3
_AT_ONCE = 16
_PATIENCE = {
    "connect_timeout": 5,
    "read_timeout": 20,
    "retries": {"mode": "standard", "max_attempts": 3},
    "max_pool_connections": _AT_ONCE,
}
_FOREVER = ("UnauthorizedOperation", "AuthFailure", "InvalidInstanceID.Malformed")  # no use to ask again


def known_keys(text):
    """instance -> its keys, from a known_hosts file that this module wrote."""
    keys = {}
    for line in text.splitlines():
        names, _, key = line.partition(" ")
        if names.startswith("i-"):
            keys.setdefault(names.split(",")[0], []).append(key)
    return keys


def keys_on(console):
    """The host keys on a console, those of its last boot."""
    blocks = _KEYS.findall(console)
    return _KEY.findall(blocks[-1]) if blocks else []


def known_hosts(instances, keys):
    """The text of a known_hosts file."""
    lines = [
        f"{','.join([instance['id'], *instance['addresses']])} {key}\n"
        for instance in sorted(instances, key=lambda instance: instance["id"])
        for key in keys[instance["id"]]
    ]
    return "".join(lines)


def console_of(client, instance):
    """What is on an instance's console now; older types only show it some minutes after the boot."""
    for latest in ({"Latest": True}, {}):
        try:
            return client.get_console_output(InstanceId=instance, **latest).get("Output", "")
        except ClientError as error:
            if error.response["Error"]["Code"] != "UnsupportedOperation":
                raise
    return ""


def look(client, instance):
    """An instance's keys; else the reason why there are none, what its console shows last, and whether it is
    of use to look again."""
    try:
        console = console_of(client, instance)
    except ClientError as error:
        code, text = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        text = text.partition(" Encoded authorization")[0]
        reason = f"its console cannot be read: {code}: {text}"
        return {"keys": [], "reason": reason, "console": "", "again": code not in _FOREVER}
    except BotoCoreError as error:
        return {"keys": [], "reason": f"its console cannot be read: {error}", "console": "", "again": True}
    reason = "its console shows no ssh host key"
    return {"keys": keys_on(console), "reason": reason, "console": console, "again": True}


def learn(client, wanted, timeout_seconds):
    """instance -> what look() has of it, for each of `wanted`; when all show keys, or the time is over."""
    seen, waiting = {}, list(wanted)
    deadline = time.monotonic() + timeout_seconds
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while waiting:
            seen.update(zip(waiting, pool.map(lambda each: look(client, each), waiting), strict=True))
            waiting = [each for each in waiting if not seen[each]["keys"] and seen[each]["again"]]
            if time.monotonic() > deadline:
                break
            if waiting:
                time.sleep(_POLL_SECONDS)
    return seen


def write(path, text):
    """Replace the file at once, or not at all."""
    part = path + ".part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(part, path)


def main():
    """Run the module."""
    options = {
        "path": {"type": "path", "required": True},
        "instances": {"type": "list", "elements": "dict", "required": True},
        "timeout_seconds": {"type": "int", "default": 300},
    }
    module = AnsibleAWSModule(argument_spec=options, supports_check_mode=True)
    path, instances = module.params["path"], module.params["instances"]
    before = ""
    if os.path.exists(path):
        with open(path) as file:
            before = file.read()
    keys = known_keys(before)
    wanted = [instance["id"] for instance in instances if instance["id"] not in keys]
    timeout_seconds = module.params["timeout_seconds"]
    seen = {}
    if wanted and not module.check_mode:
        seen = learn(module.client("ec2", config=_PATIENCE), wanted, timeout_seconds)
    learned = {name: each["keys"] for name, each in seen.items() if each["keys"]}
    keys.update(learned)
    after = known_hosts([each for each in instances if each["id"] in keys], keys)
    if after != before and not module.check_mode:
        write(path, after)
    missing = [
        {
            "id": name,
            "reason": each["reason"],
            "console": " | ".join(each["console"].splitlines()[-5:])[-500:],
        }
        for name, each in sorted(seen.items())
        if not each["keys"]
    ]
    module.exit_json(changed=after != before, learned=sorted(learned), missing=missing)


if __name__ == "__main__":
    main()
