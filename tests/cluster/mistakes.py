"""What operators get wrong before there is a cluster, and what the playbook says then."""

import json
from typing import Any

from testbed.controller import Controller

GOOD = {"workers": 1, "ssh_from": "172.31.0.0/16"}


# What EC2 says when a policy does not allow to start an instance.
REFUSAL = (
    "User: arn:aws:iam::123456789012:user/o is not authorized to perform: ec2:RunInstances on resource:"
    " arn:aws:ec2:us-east-1:123456789012:instance/* because no identity-based policy allows it."
    " Encoded authorization failure message: AbC"
)


def make_vpc(operator: Controller) -> tuple[str, str]:
    """Another VPC, and a subnet of it that gives no public addresses."""
    with operator.bed.network.inside():
        ec2 = operator.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        place = {"CidrBlock": "10.9.0.0/24", "AvailabilityZone": "us-east-1a"}
        return vpc, ec2.create_subnet(VpcId=vpc, **place)["Subnet"]["SubnetId"]


def leave_a_foreign_group(ec2: Any, cluster: str) -> None:
    """Make a security group that has the name of the cluster's, and is not the cluster's."""
    vpc = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
    ec2.create_security_group(GroupName=f"zmqmr-{cluster}", Description="somebody's", VpcId=vpc)


def leave_foreign_names(iam: Any, cluster: str) -> None:
    """Make what has the names of the cluster's role and profile, and is not the cluster's."""
    name = f"zmqmr-{cluster}-us-east-1"
    policy = {"Version": "2012-10-17", "Statement": []}
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(policy))
    iam.create_instance_profile(InstanceProfileName=name)


# What is given, the environment, and what the playbook says.
MISTAKES: list[tuple[dict[str, object], dict[str, str], str]] = [
    ({"cluster": "Demo_1"}, {}, r"Say which cluster: -e cluster=NAME.*\(not \"Demo_1\"\)"),
    ({"workers": 0}, {}, r"workers=0: give the number of workers, 1 or more; playbooks/destroy.yml ends"),
    ({"workers": "many"}, {}, r"workers=many: give the number of workers"),
    ({"worker": 2}, {}, r"There is no -e worker here: did you mean -e workers\?"),
    ({"python_packages": "--pre,numpy"}, {}, r"python_packages: --pre is none: give names or name==version"),
    ({"package_index": "pypi"}, {}, r"package_index: give the URL of an index that the hosts reach"),
    (
        {"package_index": "https://me:secret@host/simple"},
        {},
        r"package_index: give the URL of an index that the hosts reach, .*; a password belongs into their",
    ),
    ({"s3_read": "s3://*"}, {}, r"s3://\*: give a bucket and a prefix in it, s3://bucket/prefix/, without"),
    ({}, {"AWS_REGION": "us-gov-west-1"}, r"us-gov-west-1 is in a partition of AWS of its own.*-i inventory"),
    ({"ssh_from": ""}, {}, r"Say from where you use ssh: -e ssh_from=203\.0\.113\.7/32"),
    ({"ssh_from": "0.0.0.0/0"}, {}, r"whole world.*-e i_accept_public_ssh=true"),
    ({"ssh_from": "10.0.0.0/16,::/0"}, {}, r"ssh_from=::/0: that is the whole world"),
    (
        {"ssh_from": "10.0.0.1/16"},
        {},
        r"ssh_from=10\.0\.0\.1/16: it has bits beyond its prefix: say 10\.0\.0\.0/16",
    ),
    (
        {"permissions_boundary": "zmqmr-hosts"},
        {},
        r"permissions_boundary=zmqmr-hosts: give the ARN of a policy",
    ),
    ({"worker_type": "c99.huge"}, {}, r"us-east-1 has no instance type c99\.huge"),
    ({"worker_type": "m5.large"}, {}, r"m5\.large has no local NVMe drives.*-e allow_no_drives=true"),
    (
        {"worker_market": "stolen"},
        {},
        r"value of ec2_cluster_worker_market must be one of: on-demand, spot",
    ),
    (
        {"subnet_id": "subnet-0123456789abcdef0"},
        {},
        r"There is no subnet subnet-0123456789abcdef0 in us-east-1",
    ),
    (
        {"coordinator_type": "u7in-32tb.224xlarge", "worker_type": "trn1.2xlarge"},
        {},
        r"us-east-1a, where subnet-\w+ is, does not offer u7in-32tb\.224xlarge and trn1\.2xlarge; no zone of"
        r" us-east-1 does: take other types",
    ),
    ({}, {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}, r"Say in which region: export AWS_REGION="),
    ({}, {"AWS_REGION": "us-east-9"}, r"EC2 does not answer as us-east-9: is that a region"),
    (
        {},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        r"EC2 does not answer.*are there credentials",
    ),
    (
        {"cluster": "rightless"},
        {},
        r"Your credentials may not start the coordinator and the worker \(UnauthorizedOperation: User: .*\)"
        r": docs/iam/operator\.json has the rights",
    ),
    (
        {"cluster": "quota"},
        {},
        r"EC2 does not start the 1 coordinator of type m6i\.large: the account's quota of vCPUs is used up"
        r": ask AWS.*\(VcpuLimitExceeded\)\. Nothing is running",
    ),
    (
        {"cluster": "denied"},
        {},
        r"AWS does not let you make the role zmqmr-denied-us-east-1: give the boundary that your policy asks"
        r" for, -e permissions_boundary=arn:aws:iam::123456789012:policy/zmqmr-hosts,"
        r" see docs/iam/README\.md: .*iam:CreateRole",
    ),
    (
        {"cluster": "foreign"},
        {},
        r"There is a security group zmqmr-foreign that does not bear the tag zmqmr:cluster=foreign: it is"
        r" somebody else's[\s\S]*There is a role zmqmr-foreign-us-east-1 that does not bear the tag"
        r" zmqmr:cluster=foreign: it is somebody else's[\s\S]*There is an instance profile"
        r" zmqmr-foreign-us-east-1 that does not",
    ),
]
