#!/usr/bin/python
"""Starts the instances that are missing, once, and says within a deadline why EC2 does not."""

DOCUMENTATION = r"""
module: ec2_launch
short_description: Start as many EC2 instances as are missing
description:
  - Counts the instances that the filters find, and starts what is missing to C(exact_count); it ends none.
  - A request bears a token that is kept in a file until EC2 has answered, so that a run that was killed
    meanwhile and the next one start one set of instances.
  - What may pass, a lack of capacity say, is tried again until C(timeout_seconds) is over, and then named.
options:
  exact_count:
    description: How many there are to be.
    type: int
    required: true
  filters:
    description: What finds those that are there.
    type: dict
    required: true
  request:
    description: What EC2's RunInstances is given, but for the counts and the token.
    type: dict
    required: true
  token_path:
    description: The file of the token.
    type: path
    required: true
  timeout_seconds:
    description: How long a refusal that may pass is taken.
    type: int
    default: 60
  boot_seconds:
    description: How long an instance may take until it runs.
    type: int
    default: 300
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""
RETURN = r"""
instance_ids:
  description: The instances that were started.
  returned: always
  type: list
  elements: str
code:
  description: EC2's code of a refusal.
  returned: on failure
  type: str
"""

import json  # noqa: E402  Ansible wants the documentation first
import os  # noqa: E402
import time  # noqa: E402
import uuid  # noqa: E402

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # AnsibleAWSModule says so
    pass

_MAY_PASS = ("InsufficientInstanceCapacity", "InsufficientHostCapacity", "IdempotentInstanceTerminated")
# Not all of EC2 knows at once what was just made: key pair, security group, profile, that it has a role.
_NOT_YET_CODES = ("InvalidKeyPair.NotFound", "InvalidGroup.NotFound")
_NOT_YET_WORDS = ("nvalid IAM Instance Profile", "has no associated IAM Roles")
_TOO_MANY = ("RequestLimitExceeded", "Throttling")  # EC2 has not looked at the request
_POLL_SECONDS = 2
# An answer that never comes is noticed; the token makes asking again harmless.
_PATIENCE = {"connect_timeout": 5, "read_timeout": 60, "retries": {"mode": "standard", "max_attempts": 3}}


def may_pass(code, message):
    """Whether EC2 may take the same request some seconds later."""
    unknown_profile = code == "InvalidParameterValue" and any(words in message for words in _NOT_YET_WORDS)
    return unknown_profile or code in _MAY_PASS + _NOT_YET_CODES


def decided(error):
    """Whether EC2 has decided about a request: the next one is another, with a token of its own. After an
    error of EC2's own nobody knows what came of it, until the same token is asked about again."""
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status < 500 and error.response["Error"]["Code"] not in _TOO_MANY


def whole(request):
    """The request with numbers where templates of older Ansibles leave text."""
    for mapping in request.get("BlockDeviceMappings", []):
        mapping["Ebs"]["VolumeSize"] = int(mapping["Ebs"]["VolumeSize"])
    return request


def token_at(path, present, missing):
    """The token for `missing` instances beside those that are `present`, in the file before EC2 sees it.

    A run that was killed leaves its token. The next run takes it while EC2 does not show what came of it.
    """
    begun = {"present": present, "missing": missing}
    if os.path.exists(path):
        with open(path) as file:
            left = json.load(file)
        if {**left, **begun} == left:
            return left["token"]
    token = uuid.uuid4().hex
    part = path + ".part"
    # The folder has secrets too: nothing in it is for others to read.
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({**begun, "token": token}, file)
    os.replace(part, path)
    return token


def found(client, filters):
    """The ids of the instances that the filters find."""
    wanted = [
        {"Name": name, "Values": value if isinstance(value, list) else [value]}
        for name, value in filters.items()
    ]
    pages = client.get_paginator("describe_instances").paginate(Filters=wanted)
    return sorted(
        instance["InstanceId"]
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    )


def start(module, client, present, missing):
    """The ids of the instances that EC2 starts; fails when it refuses for good, or for too long."""
    path, deadline = module.params["token_path"], time.monotonic() + module.params["timeout_seconds"]
    request = {**whole(module.params["request"]), "MinCount": missing, "MaxCount": missing}
    while True:
        try:
            answer = client.run_instances(**request, ClientToken=token_at(path, present, missing))
            return [instance["InstanceId"] for instance in answer["Instances"]]
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
            again = not decided(error) or may_pass(code, message)
            if decided(error):
                os.unlink(path)
            if not again or time.monotonic() > deadline:
                module.fail_json(msg=message, code=code)
        except BotoCoreError as error:
            module.fail_json(msg=f"no answer: {error}", code="NoAnswer")
        time.sleep(_POLL_SECONDS)


def wait(module, client, started):
    """Wait until they run; fails with EC2's reason when one does not."""
    deadline = time.monotonic() + module.params["boot_seconds"]
    while True:
        states = {}
        try:
            for page in client.get_paginator("describe_instances").paginate(InstanceIds=started):
                for each in page["Reservations"]:
                    states.update({instance["InstanceId"]: instance for instance in each["Instances"]})
        except ClientError as error:
            # Not everything in EC2 knows at once what was started.
            if error.response["Error"]["Code"] != "InvalidInstanceID.NotFound":
                module.fail_json_aws(error, msg="cannot look at the new instances")
        except BotoCoreError as error:
            module.fail_json(msg=f"no answer about the new instances: {error}", code="NoAnswer")
        names = {name: instance["State"]["Name"] for name, instance in states.items()}
        if len(names) == len(started) and set(names.values()) == {"running"}:
            return
        for name, state in names.items():
            if state not in ("pending", "running"):
                os.unlink(module.params["token_path"])  # the same token would be answered with the dead one
                reason = states[name].get("StateReason", {})
                module.fail_json(
                    msg=f"{name} has ended at once: {reason.get('Message') or state}",
                    code=reason.get("Code", "Ended"),
                )
        if time.monotonic() > deadline:
            slow = sorted(name for name in started if names.get(name) != "running")
            module.fail_json(
                msg=f"{', '.join(slow)} not running after {module.params['boot_seconds']} s", code="Timeout"
            )
        time.sleep(_POLL_SECONDS)


def main():
    """Run the module."""
    options = {
        "exact_count": {"type": "int", "required": True},
        "filters": {"type": "dict", "required": True},
        "request": {"type": "dict", "required": True},
        "token_path": {"type": "path", "required": True, "no_log": False},
        "timeout_seconds": {"type": "int", "default": 60},
        "boot_seconds": {"type": "int", "default": 300},
    }
    module = AnsibleAWSModule(argument_spec=options, supports_check_mode=True)
    client = module.client("ec2", config=_PATIENCE)
    try:
        present = found(client, module.params["filters"])
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg="cannot look for the instances")
    missing, started = module.params["exact_count"] - len(present), []
    if missing > 0 and not module.check_mode:
        started = start(module, client, present, missing)
        wait(module, client, started)
        os.unlink(module.params["token_path"])
    module.exit_json(changed=missing > 0, instance_ids=started)


if __name__ == "__main__":
    main()
