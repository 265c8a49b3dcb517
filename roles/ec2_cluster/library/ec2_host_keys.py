#!/usr/bin/python
"""Learns the ssh host keys of instances from their consoles, and keeps them in a known_hosts file."""

DOCUMENTATION = r"""
module: ec2_host_keys
short_description: Keep a known_hosts file of EC2 instances
description:
  - Reads the host keys that cloud-init prints on an instance's console, through the EC2 API, so that the
    first ssh connection is checked like every other.
  - A key that was learned once for an instance is kept. Instances that are not named lose their lines.
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
"""

import os  # noqa: E402  Ansible wants the documentation first
import re  # noqa: E402
import time  # noqa: E402

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # AnsibleAWSModule says so
    pass

_KEYS = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
_KEY = re.compile(r"^\s*(?:\[[^\]]*\]\s*)?((?:ssh-ed25519|ecdsa-sha2-\S+) [A-Za-z0-9+/=]+)", re.MULTILINE)
_POLL_SECONDS = 3


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


def console_of(module, client, instance):
    """What is on an instance's console now; older types only show it some minutes after the boot."""
    for latest in ({"Latest": True}, {}):
        try:
            return client.get_console_output(InstanceId=instance, **latest).get("Output", "")
        except ClientError as error:
            if error.response["Error"]["Code"] != "UnsupportedOperation":
                module.fail_json_aws(error, msg=f"cannot read the console of {instance}")
        except BotoCoreError as error:
            module.fail_json_aws(error, msg=f"cannot read the console of {instance}")
    return ""


def learn(module, client, wanted):
    """instance -> keys for each of `wanted`; fails when a console does not show them in time."""
    learned, last = {}, ""
    deadline = time.monotonic() + module.params["timeout_seconds"]
    while True:
        for instance in [each for each in wanted if each not in learned]:
            last = console_of(module, client, instance)
            if keys := keys_on(last):
                learned[instance] = keys
        missing = [each for each in wanted if each not in learned]
        if not missing:
            return learned
        if time.monotonic() > deadline:
            module.fail_json(
                msg=f"the console of {missing[0]} shows no ssh host key after"
                f" {module.params['timeout_seconds']} s, so it cannot be reached safely; its last lines:"
                f" {last[-500:] or 'none'}. Run cluster.yml again, or destroy.yml."
            )
        time.sleep(_POLL_SECONDS)


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
    learned = {} if module.check_mode or not wanted else learn(module, module.client("ec2"), wanted)
    keys.update(learned)
    after = known_hosts([each for each in instances if each["id"] in keys], keys)
    if after != before and not module.check_mode:
        part = path + ".part"
        with open(part, "w") as file:
            file.write(after)
        os.chmod(part, 0o600)
        os.replace(part, path)
    module.exit_json(changed=after != before, learned=sorted(learned))


if __name__ == "__main__":
    main()
