#!/usr/bin/python
"""Asks AWS, side by side, all that a role wants to know before it starts instances."""

DOCUMENTATION = r"""
module: ec2_survey
short_description: What EC2 has and offers for a cluster
description:
  - Regions, instance types and the zones that offer them, the cluster's instances, key pair, security
    group, role and instance profile, a subnet, Canonical's image, and whether the credentials may start
    instances.
  - It changes nothing.
  - What AWS refuses to answer is data too, so that the role can say what to do.
options:
  cluster:
    description: The cluster's name.
    type: str
    required: true
  iam_name:
    description: The name of the role and of the instance profile.
    type: str
    required: true
  launches:
    description: The instances that there are to be, each with its C(role), C(type), C(count) and
      C(market). The image is for the last one's processor.
    type: list
    elements: dict
    required: true
  subnet_id:
    description: The subnet. Without it that of the cluster's instances is taken, or else a default one in a
      zone that offers all the types.
    type: str
    default: ""
  image_parameter:
    description: The name of the SSM parameter with the image's id, C({architecture}) in it.
    type: str
    required: true
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
"""
RETURN = r"""
regions:
  description: The names of the account's regions. When there are none, C(msg) has the reason.
  returned: always
  type: list
  elements: str
types:
  description: By name of the type, C(architecture), C(cores), C(drives). An unknown type is not there.
  returned: always
  type: dict
zones:
  description: The zones that offer all the types.
  returned: always
  type: list
  elements: str
instances:
  description: The cluster's instances, as amazon.aws.ec2_instance_info shows them.
  returned: always
  type: list
  elements: dict
key_pairs:
  description: The key pair of the cluster, with its C(key_name), C(public_key) and C(tags).
  returned: always
  type: list
  elements: dict
groups:
  description: The security group of the cluster's name in the subnet's VPC, with its C(group_id), C(vpc_id)
    and C(tags).
  returned: always
  type: list
  elements: dict
roles:
  description: The role, with its C(tags).
  returned: always
  type: list
  elements: dict
profiles:
  description: The instance profile, with its C(tags).
  returned: always
  type: list
  elements: dict
subnet:
  description: The subnet, empty when there is none.
  returned: always
  type: dict
image:
  description: C(id), C(owner_id) and C(root_device_name) of the image.
  returned: always
  type: dict
refused:
  description: What was not answered, as C(what) and C(reason).
  returned: always
  type: list
  elements: dict
forbidden:
  description: The roles whose instances the credentials may not start, as C(what) and C(reason). Only those
    are tried of which instances are missing.
  returned: always
  type: list
  elements: dict
"""

import re  # noqa: E402  Ansible wants the documentation first
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from functools import partial  # noqa: E402

from ansible.module_utils.common.dict_transformations import camel_dict_to_snake_dict  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.tagging import (  # noqa: E402
    boto3_tag_list_to_ansible_dict,
)

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # AnsibleAWSModule says so
    pass

# A network that swallows everything is noticed after half a minute.
_PATIENCE = {"connect_timeout": 5, "read_timeout": 20, "retries": {"mode": "standard", "max_attempts": 3}}
_LIVING = ["pending", "running", "stopping", "stopped"]
_ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}  # Canonical's words for them
_RESOURCE = re.compile(r"on resource: (arn:\S+)")
_FORBIDDEN = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException")


def facts_of(description):
    """What a role asks of a type, from EC2's description of it."""
    storage = description.get("InstanceStorageInfo", {})
    drives = storage.get("Disks", []) if storage.get("NvmeSupport", "unsupported") != "unsupported" else []
    return {
        "architecture": description["ProcessorInfo"]["SupportedArchitectures"][-1],
        "cores": description["VCpuInfo"]["DefaultVCpus"],
        "drives": sum(disk["Count"] for disk in drives),
    }


def filters(**wanted):
    """EC2's filters, from names with _ for -; a value or a list of them."""
    return [
        {"Name": name.replace("_", "-"), "Values": values if isinstance(values, list) else [values]}
        for name, values in wanted.items()
    ]


def pages(client, operation, key, **arguments):
    """All that a paginated operation has."""
    found = []
    for page in client.get_paginator(operation).paginate(**arguments):
        found.extend(page[key])
    return found


def regions(client):
    """The names of the account's regions."""
    return [each["RegionName"] for each in client.describe_regions()["Regions"]]


def types(client, names):
    """By name, the facts of the types that the region has."""
    found = pages(client, "describe_instance_types", "InstanceTypes", Filters=filters(instance_type=names))
    return {each["InstanceType"]: facts_of(each) for each in found}


def zones(client, names):
    """The zones that offer all the types."""
    found = pages(
        client,
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=filters(instance_type=names),
    )
    offered = [{each["Location"] for each in found if each["InstanceType"] == name} for name in names]
    return sorted(set.intersection(*offered))


def instances(client, cluster):
    """The cluster's instances that are not ended, as amazon.aws.ec2_instance_info shows them."""
    wanted = filters(**{"tag:zmqmr:cluster": cluster, "instance_state_name": _LIVING})
    found = []
    for reservation in pages(client, "describe_instances", "Reservations", Filters=wanted):
        for each in reservation["Instances"]:
            shown = camel_dict_to_snake_dict(each, ignore_list=["Tags"])
            found.append({**shown, "tags": boto3_tag_list_to_ansible_dict(each.get("Tags", []))})
    return found


def key_pairs(client, cluster):
    """The key pair of the cluster's name, if there is one."""
    wanted = filters(key_name=f"zmqmr-{cluster}")
    found = client.describe_key_pairs(Filters=wanted, IncludePublicKey=True)["KeyPairs"]
    return [
        {
            "key_name": each["KeyName"],
            "public_key": each.get("PublicKey", ""),
            "tags": boto3_tag_list_to_ansible_dict(each.get("Tags", [])),
        }
        for each in found
    ]


def tags_of(ask_for, kind, **name):
    """A list of what IAM has under a name, with its tags; empty when there is nothing."""
    try:
        found = ask_for(**name)[kind]
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchEntity":
            return []
        raise
    return [{"tags": boto3_tag_list_to_ansible_dict(found.get("Tags", []))}]


def groups(client, cluster):
    """The security groups of the cluster's name, one in a VPC."""
    wanted = filters(group_name=f"zmqmr-{cluster}")
    return [
        {
            "group_id": each["GroupId"],
            "vpc_id": each.get("VpcId", ""),
            "tags": boto3_tag_list_to_ansible_dict(each.get("Tags", [])),
        }
        for each in client.describe_security_groups(Filters=wanted)["SecurityGroups"]
    ]


def subnets(client, name):
    """The subnet of this name, or the default ones."""
    wanted = filters(subnet_id=name) if name else filters(default_for_az="true")
    found = client.describe_subnets(Filters=wanted)["Subnets"]
    return sorted(map(camel_dict_to_snake_dict, found), key=lambda subnet: subnet["availability_zone"])


def chosen(found, offering):
    """The first subnet in a zone that offers the types, else the first one; empty when there is none."""
    fit = [subnet for subnet in found if subnet["availability_zone"] in offering]
    return (fit + found + [{}])[0]


def image(client, parameters, parameter):
    """The image that an SSM parameter names."""
    name = parameters.get_parameter(Name=parameter)["Parameter"]["Value"]
    for each in client.describe_images(ImageIds=[name])["Images"]:
        return {"id": name, "owner_id": each["OwnerId"], "root_device_name": each["RootDeviceName"]}
    return {"id": name, "owner_id": "", "root_device_name": ""}


def is_forbidden(error, in_group):
    """Whether the credentials may not start instances.

    Before the cluster has its security group EC2 takes the VPC's default one, which the operator's policy
    does not allow: then a refusal counts when it names another thing than a group.
    """
    if error.response["Error"]["Code"] not in _FORBIDDEN:
        return False  # DryRunOperation first of all; all else the launch itself meets, or not
    refused_for = _RESOURCE.search(error.response["Error"].get("Message", ""))
    return in_group or (refused_for is not None and ":security-group/" not in refused_for[1])


def try_launch(client, cluster, kind, group_ids, subnet_id, image_id):
    """Ask whether an instance might be started, as far as EC2 knows before its key pair, group and profile
    are made; ClientError when the credentials may not do that."""
    tags = [{"Key": "zmqmr:cluster", "Value": cluster}, {"Key": "zmqmr:role", "Value": kind["role"]}]
    try:
        client.run_instances(
            DryRun=True,
            MinCount=1,
            MaxCount=1,
            ImageId=image_id,
            InstanceType=kind["type"],
            SubnetId=subnet_id,
            MetadataOptions={"HttpTokens": "required"},
            TagSpecifications=[{"ResourceType": each, "Tags": tags} for each in ("instance", "volume")],
            **({"SecurityGroupIds": group_ids} if group_ids else {}),
            **({"InstanceMarketOptions": {"MarketType": "spot"}} if kind["market"] == "spot" else {}),
        )
    except ClientError as error:
        if is_forbidden(error, bool(group_ids)):
            raise


def missing(launches, present):
    """The launches of which not all instances are there."""
    there = [each["tags"].get("zmqmr:role") for each in present]
    return [each for each in launches if there.count(each["role"]) < int(each["count"])]


def reason_of(error):
    """One line: AWS's code, and what it says but for the encoded part."""
    if isinstance(error, ClientError):
        text = f"{error.response['Error']['Code']}: {error.response['Error'].get('Message', '')}"
    else:
        text = str(error)
    return text.partition(" Encoded authorization")[0].partition("\n")[0].strip()


def ask(questions):
    """The answers to questions, `what: function`, that are asked side by side; and what was refused."""
    answers, refused = {}, []
    with ThreadPoolExecutor(max(1, len(questions))) as pool:
        asked = {what: pool.submit(question) for what, question in questions.items()}
    for what, answer in asked.items():
        try:
            answers[what] = answer.result()
        except (BotoCoreError, ClientError) as error:
            refused.append({"what": what, "reason": reason_of(error)})
    return answers, refused


def look(ec2, iam, cluster, iam_name, names, subnet_id):
    """What can be asked at once; and what was refused."""
    questions = {
        "regions": lambda: regions(ec2),
        "types": lambda: types(ec2, names),
        "zones": lambda: zones(ec2, names),
        "instances": lambda: instances(ec2, cluster),
        "key_pairs": lambda: key_pairs(ec2, cluster),
        "groups": lambda: groups(ec2, cluster),
        "subnets": lambda: subnets(ec2, subnet_id),
        "roles": lambda: tags_of(iam.get_role, "Role", RoleName=iam_name),
        "profiles": lambda: tags_of(
            iam.get_instance_profile, "InstanceProfile", InstanceProfileName=iam_name
        ),
    }
    answered, refused = ask(questions)
    return {**{what: [] for what in questions}, "types": {}, **answered}, refused


def look_further(ec2, ssm, answers, last_type, subnet_id, image_parameter):
    """What follows from the first answers: the image, and the subnet of instances that are there."""
    questions = {}
    if not subnet_id and answers["instances"]:
        questions["subnets"] = lambda: subnets(ec2, answers["instances"][0]["subnet_id"])
    if kind := answers["types"].get(last_type):
        architecture = _ARCHITECTURES.get(kind["architecture"], kind["architecture"])
        parameter = image_parameter.replace("{architecture}", architecture)
        questions["image"] = lambda: image(ec2, ssm, parameter)
    answered, refused = ask(questions)
    return {"image": {}, **answered}, refused


def survey(ec2, ssm, iam, cluster, iam_name, launches, subnet_id, image_parameter):
    """All that the module returns."""
    names = sorted({each["type"] for each in launches})
    answers, refused = look(ec2, iam, cluster, iam_name, names, subnet_id)
    further, refused_then = look_further(ec2, ssm, answers, launches[-1]["type"], subnet_id, image_parameter)
    answers.update(further)
    subnet = answers["subnet"] = chosen(answers.pop("subnets"), answers["zones"])
    answers["groups"] = [each for each in answers["groups"] if each["vpc_id"] == subnet.get("vpc_id")]
    ours = [each for each in answers["groups"] if each["tags"].get("zmqmr:cluster") == cluster]
    group_ids, tries = [each["group_id"] for each in ours], {}
    if subnet and answers["image"]:
        where = (group_ids, subnet["subnet_id"], answers["image"]["id"])
        for each in missing(launches, answers["instances"]):
            tries[each["role"]] = partial(try_launch, ec2, cluster, each, *where)
    return {**answers, "refused": refused + refused_then, "forbidden": ask(tries)[1]}


def main():
    """Run the module."""
    options = {
        "cluster": {"type": "str", "required": True},
        "iam_name": {"type": "str", "required": True},
        "launches": {"type": "list", "elements": "dict", "required": True},
        "subnet_id": {"type": "str", "default": ""},
        "image_parameter": {"type": "str", "required": True},
    }
    module = AnsibleAWSModule(argument_spec=options, supports_check_mode=True)
    clients = [module.client(service, config=_PATIENCE) for service in ("ec2", "ssm", "iam")]
    found = survey(*clients, **{name: module.params[name] for name in options})
    msg = "".join(each["reason"] for each in found["refused"] if each["what"] == "regions")
    module.exit_json(changed=False, **found, msg=msg)


if __name__ == "__main__":
    main()
