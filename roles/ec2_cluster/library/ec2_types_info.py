#!/usr/bin/python
"""Says what EC2 knows of instance types."""

DOCUMENTATION = r"""
module: ec2_types_info
short_description: Facts of EC2 instance types
description:
  - Architecture, cores and local NVMe drives of instance types, before anything is started.
options:
  types:
    description: The instance types, C(c6id.large) say.
    type: list
    elements: str
    required: true
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""
RETURN = r"""
types:
  description: By name of the type, C(architecture), C(cores), C(drives). An unknown type is not there.
  returned: always
  type: dict
"""

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # AnsibleAWSModule says so
    pass


def facts_of(description):
    """What a role asks of a type, from EC2's description of it."""
    storage = description.get("InstanceStorageInfo", {})
    drives = storage.get("Disks", []) if storage.get("NvmeSupport", "unsupported") != "unsupported" else []
    return {
        "architecture": description["ProcessorInfo"]["SupportedArchitectures"][-1],
        "cores": description["VCpuInfo"]["DefaultVCpus"],
        "drives": sum(disk["Count"] for disk in drives),
    }


def main():
    """Run the module."""
    options = {"types": {"type": "list", "elements": "str", "required": True}}
    module = AnsibleAWSModule(argument_spec=options, supports_check_mode=True)
    client = module.client("ec2")
    found = {}
    for name in sorted(set(module.params["types"])):
        try:
            answer = client.describe_instance_types(InstanceTypes=[name])
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidInstanceType":
                module.fail_json_aws(error, msg=f"cannot ask about the instance type {name}")
            continue
        except BotoCoreError as error:
            module.fail_json_aws(error, msg=f"cannot ask about the instance type {name}")
        found[name] = facts_of(answer["InstanceTypes"][0])
    module.exit_json(changed=False, types=found)


if __name__ == "__main__":
    main()
