"""What moto's EC2 lacks, or does otherwise than EC2, as far as operators of a cluster notice."""

import gzip
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ACCOUNT = "123456789012"
CANONICAL = "099720109477"
IMAGE = "ami-0noble24040000001"
_PARAMETER = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
_REFUSALS = {
    "DescribeInstances": "describe_instances",
    "DescribeInstanceTypes": "describe_instance_types",
    "RunInstances": "run_instances",
}
_REFUSALS_OF_CONSOLES = {"GetConsoleOutput": "get_console_output"}
_REFUSALS_OF_IAM = {"CreateRole": "create_role"}


def write_images(path: Path) -> None:
    """Write moto's images, and Canonical's of Ubuntu 24.04, to the file that moto will read."""
    spec = importlib.util.find_spec("moto")
    assert spec is not None and spec.submodule_search_locations
    with gzip.open(Path(spec.submodule_search_locations[0]) / "ec2/resources/amis.json.gz") as file:
        images = json.load(file)
    model = next(image for image in images if image["owner_id"] == CANONICAL)
    noble = {
        **model,
        "ami_id": IMAGE,
        "name": "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260101",
        "description": "Canonical, Ubuntu, 24.04 LTS, amd64 noble image",
    }
    path.write_text(json.dumps([*images, noble]))


def instances(region: str) -> Iterator[Any]:
    """Every instance of a region that moto knows, terminated ones too."""
    from moto.ec2 import ec2_backends

    for reservation in list(ec2_backends[ACCOUNT][region].reservations.values()):
        yield from reservation.instances


def fill(folder: Path, console: Callable[[str], str]) -> None:
    """Patch moto. `console(instance)` gives an instance's console output."""
    _know_filters()
    _know_ubuntu()
    _give_every_instance_its_profile()
    _show_consoles(console)
    _refuse_what_is_ordered(folder)


def _know_filters() -> None:
    from moto.ec2 import utils
    from moto.ec2.models import instances as models

    utils.filter_dict_attribute_mapping["instance-lifecycle"] = "lifecycle"
    original = models.filter_reservations

    def filter_reservations(reservations: list[Any], filters: dict[str, Any]) -> list[Any]:
        others = dict(filters)
        wanted = others.pop("reservation-id", None)
        return original([each for each in reservations if wanted is None or each.id in wanted], others)

    models.filter_reservations = filter_reservations


def _know_ubuntu() -> None:
    from moto.core.utils import utcnow
    from moto.ssm import models

    original = models.ParameterDict._check_loading_status

    def check(parameters: Any, key: str) -> None:
        original(parameters, key)
        if str(key).startswith("/aws/service/canonical") and not dict.__contains__(parameters, _PARAMETER):
            parameter = models.Parameter(
                account_id=parameters.account_id, name=_PARAMETER, value=IMAGE, parameter_type="String",
                description=None, allowed_pattern=None, keyid=None, last_modified_date=utcnow(), version=1,
                data_type="aws:ec2:image",
            )  # fmt: skip
            dict.__setitem__(parameters, _PARAMETER, [parameter])

    models.ParameterDict._check_loading_status = check


def _give_every_instance_its_profile() -> None:
    """moto gives it to the first of a launch."""
    from moto.ec2.models.instances import InstanceBackend

    original = InstanceBackend.run_instances

    def run_instances(backend: Any, *arguments: Any, **options: Any) -> Any:
        reservation = original(backend, *arguments, **options)
        if name := options.get("iam_instance_profile_name"):
            for instance in reservation.instances[1:]:
                backend.associate_iam_instance_profile(instance.id, iam_instance_profile_name=name)
        return reservation

    InstanceBackend.run_instances = run_instances


def _show_consoles(console: Callable[[str], str]) -> None:
    from moto.core.responses import ActionResult
    from moto.core.types import Base64EncodedString
    from moto.core.utils import utcnow
    from moto.ec2.responses.general import General

    def get_console_output(response: Any) -> Any:
        instance = response.ec2_backend.get_instance(response._get_param("InstanceId"))
        output = Base64EncodedString.from_raw_string(console(instance.private_ip)[-64_000:])
        return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": output})

    General.get_console_output = get_console_output


def _refuse_what_is_ordered(folder: Path) -> None:
    """Also notes what Ansible asks for, in the file `asked`: SERVICE:ACTION, a line each."""
    from moto.core.responses import BaseResponse
    from moto.ec2.exceptions import EC2ClientError
    from moto.ec2.responses.general import General
    from moto.ec2.responses.instances import InstanceResponse
    from moto.iam.exceptions import IAMException
    from moto.iam.responses import IamResponse

    def refusing(action: str, original: Callable[[Any], Any], error: type[Exception]) -> Callable[[Any], Any]:
        def respond(response: Any) -> Any:
            asked = str(response.querystring)
            for order in folder.glob(f"refuse-{action}-*"):
                code, where, message = order.read_text().split("\n", 2)
                # A dry run is about rights, not about what there is.
                if where in asked and (code == "UnauthorizedOperation" or "DryRun" not in asked):
                    with open(folder / order.name.replace("refuse", "refused", 1), "a") as log:
                        log.write(f"{code}\n")
                    raise error(code, message)
            return original(response)

        return respond

    responses: list[tuple[Any, type[Exception], dict[str, str]]] = [
        (InstanceResponse, EC2ClientError, _REFUSALS),
        (General, EC2ClientError, _REFUSALS_OF_CONSOLES),
        (IamResponse, IAMException, _REFUSALS_OF_IAM),
    ]
    for service, error, methods in responses:
        for action, method in methods.items():
            setattr(service, method, refusing(action, getattr(service, method), error))
    call = BaseResponse.call_action

    def call_action(response: Any) -> Any:
        if "ansible" in str(response.headers.get("User-Agent", "")).lower():
            with open(folder / "asked", "a") as log:
                log.write(f"{response.service_name}:{response._get_action()}\n")
        return call(response)

    BaseResponse.call_action = call_action
