"""Each rule of Amazon's that the sandbox enforces where moto is kinder."""

import json

import pytest

pytestmark = pytest.mark.sandbox


def code_of(answer):
    return answer.get("Error", {}).get("Code")


@pytest.fixture
def ask(aws):
    """Make calls to EC2 as somebody with all rights; give the codes of their errors, or None."""

    def codes(*calls):
        return [code_of(answer) for answer in aws(*(("ec2", name, arguments) for name, arguments in calls))]

    return codes


@pytest.fixture
def disk(aws, sandbox):
    """A volume of 10 GiB and a snapshot of it."""
    zone = f"{sandbox.description['region']}a"
    (volume,) = aws(("ec2", "create_volume", {"Size": 10, "AvailabilityZone": zone}))
    (snapshot,) = aws(("ec2", "create_snapshot", {"VolumeId": volume["VolumeId"]}))
    return {"volume": volume["VolumeId"], "snapshot": snapshot["SnapshotId"]}


@pytest.fixture
def registration(disk):
    """A factory of RegisterImage's arguments; None takes one out."""

    def arguments(*, ebs=None, **changes):
        given = {
            "Name": "an image",
            "Architecture": "x86_64",
            "VirtualizationType": "hvm",
            "RootDeviceName": "/dev/sda1",
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": disk["snapshot"], **(ebs or {})}}
            ],
        } | changes
        return {key: value for key, value in given.items() if value is not None}

    return arguments


@pytest.fixture
def launch(aws, sandbox):
    """A factory of instances in the sandbox's subnet; gives the answer to RunInstances."""

    def run(**changes):
        described = sandbox.description
        interface = {"DeviceIndex": 0, "AssociatePublicIpAddress": True, "SubnetId": described["subnet_id"]}
        arguments = {
            "ImageId": described["helper_amis"][described["region"]],
            "MinCount": 1,
            "MaxCount": 1,
            "InstanceType": "t2.micro",
            "NetworkInterfaces": [interface | changes.pop("interface", {})],
        } | changes
        return aws(("ec2", "run_instances", arguments))[0]

    return run


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"ExternalId": "wrong"}, "AccessDenied"),
        ({"ExternalId": None}, "AccessDenied"),
        ({"RoleArn": "arn:aws:iam::123456789012:role/nobody"}, "AccessDenied"),
        ({"RoleArn": "arn:aws:iam::210987654321:role/obs-upload"}, "AccessDenied"),
        ({"RoleArn": "no arn"}, "ValidationError"),
        ({"RoleSessionName": "x"}, "ValidationError"),
        ({"RoleSessionName": "a b"}, "ValidationError"),
        ({"RoleSessionName": "\u00e9mile"}, "ValidationError"),
        ({"RoleSessionName": "x" * 65}, "ValidationError"),
        ({"DurationSeconds": 899}, "ValidationError"),
        ({"DurationSeconds": 3601}, "ValidationError"),
        ({"DurationSeconds": 43201}, "ValidationError"),
    ],
    ids=str,
)
def test_assume_role_checks_all_arguments(sandbox, aws, changes, code):
    described = sandbox.description
    arguments = {
        "RoleArn": described["role_arn"],
        "ExternalId": described["external_id"],
        "RoleSessionName": "o-b_s@1=2,3.4+5",
        "DurationSeconds": 3600,
    } | changes
    given = {key: value for key, value in arguments.items() if value is not None}
    (answer,) = aws(("sts", "assume_role", given), keys=described["obs"])
    assert code_of(answer) == code


def test_obs_user_may_assume_the_role_and_nothing_else(sandbox, aws):
    obs = sandbox.description["obs"]
    who, regions = aws(("sts", "get_caller_identity", {}), ("ec2", "describe_regions", {}), keys=obs)
    assert who["Arn"].endswith(":user/obs")
    assert code_of(regions) == "UnauthorizedOperation"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aws_secret_access_key": "wrong"}, {"ec2": "AuthFailure", "sts": "SignatureDoesNotMatch"}),
        ({"aws_session_token": "wrong"}, {"ec2": "AuthFailure", "sts": "InvalidClientTokenId"}),
        ({"aws_session_token": None}, {"ec2": "AuthFailure", "sts": "InvalidClientTokenId"}),
        ({"aws_access_key_id": "ASIAXXXXXXXXXXXXXXXX"}, {"ec2": "AuthFailure", "sts": "InvalidClientTokenId"}),
    ],
    ids=["secret", "token", "no token", "key"],
)
def test_credentials_that_are_wrong_are_refused(sandbox, aws, role_credentials, changes, code):
    keys = role_credentials()
    right = {"aws_" + name: keys[key] for name, key in NAMES.items()} | changes
    wrong = {name.removeprefix("aws_"): value for name, value in right.items() if value is not None}
    sts, ec2 = aws(("sts", "get_caller_identity", {}), ("ec2", "describe_regions", {}), keys=wrong)
    assert {"sts": code_of(sts), "ec2": code_of(ec2)} == code


NAMES = {"access_key_id": "AccessKeyId", "secret_access_key": "SecretAccessKey", "session_token": "SessionToken"}


US = {"AWS": "arn:aws:iam::123456789012:root"}
RIGHT, WRONG, NONE = "sandboxExternalId0000001", "wrong", None


@pytest.mark.parametrize(
    ("statements", "who"),
    [
        ([{"Principal": US}], [RIGHT, WRONG, NONE]),
        ([{"Principal": {"AWS": "*"}}], [RIGHT, WRONG, NONE]),
        ([{"Principal": {"AWS": "arn:aws:iam::210987654321:root"}}], []),
        ([{"Principal": {"AWS": ["arn:aws:iam::123456789012:user/auditor", "210987654321"]}}], []),
        ([{"Principal": {"AWS": ["210987654321", "123456789012"]}}], [RIGHT, WRONG, NONE]),
        ([{"Principal": US, "Condition": {"StringEquals": {"sts:ExternalId": RIGHT}}}], [RIGHT]),
        ([{"Principal": US, "Condition": {"StringEquals": {"sts:ExternalId": [RIGHT, WRONG]}}}], [RIGHT, WRONG]),
        ([{"Principal": US, "Condition": {"Null": {"sts:ExternalId": "false"}}}], [RIGHT, WRONG]),
        ([{"Principal": US, "Condition": {"Null": {"sts:ExternalId": "true"}}}], [NONE]),
        (
            [
                {"Principal": US},
                {"Effect": "Deny", "Principal": US, "Condition": {"StringNotEquals": {"sts:ExternalId": RIGHT}}},
            ],
            [RIGHT],
        ),
    ],
)
def test_assume_role_goes_by_the_trust_policy(sandbox, aws, statements, who):
    described = sandbox.description
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"} | statement for statement in statements],
    }
    change = {"RoleName": described["role_name"], "PolicyDocument": json.dumps(document)}
    assert aws(("iam", "update_assume_role_policy", change), region="us-east-1") == [{}]
    role = {"RoleArn": described["role_arn"], "RoleSessionName": "obs"}
    given = {RIGHT: {"ExternalId": RIGHT}, WRONG: {"ExternalId": WRONG}, NONE: {}}
    answers = aws(*(("sts", "assume_role", role | more) for more in given.values()), keys=described["obs"])
    let_in = [external_id for external_id, answer in zip(given, answers, strict=True) if code_of(answer) is None]
    assert let_in == who
    assert {code_of(answer) for answer in answers} <= {None, "AccessDenied"}


@pytest.fixture
def role_credentials(sandbox, aws):
    """A factory of temporary credentials."""

    def credentials():
        described = sandbox.description
        arguments = {
            "RoleArn": described["role_arn"],
            "ExternalId": described["external_id"],
            "RoleSessionName": "obs",
        }
        return aws(("sts", "assume_role", arguments), keys=described["obs"])[0]["Credentials"]

    return credentials


def test_credentials_that_expired_are_refused(sandbox, aws, role_credentials):
    keys = role_credentials()
    calls = ("sts", "get_caller_identity", {}), ("ec2", "describe_regions", {})
    assert [code_of(answer) for answer in aws(*calls, keys=keys)] == [None, None]
    sandbox.expire()
    assert [code_of(answer) for answer in aws(*calls, keys=keys)] == ["ExpiredToken", "RequestExpired"]
    assert [code_of(answer) for answer in aws(*calls, keys=sandbox.description["obs"])] == [
        None,
        "UnauthorizedOperation",
    ]


@pytest.mark.parametrize(("minutes", "word"), [(16, "Signature expired"), (-16, "Signature not yet current")])
def test_clock_that_is_more_than_15_minutes_off_is_refused(sandbox, aws, minutes, word):
    calls = ("sts", "get_caller_identity", {}), ("ec2", "describe_regions", {})
    sandbox.clock(14 * 60)
    assert [code_of(answer) for answer in aws(*calls)] == [None, None]
    sandbox.clock(minutes * 60)
    sts, ec2 = aws(*calls)
    assert code_of(sts) == "SignatureDoesNotMatch"
    assert sts["Error"]["Message"].startswith(word)
    assert code_of(ec2) == "RequestExpired"


def test_unsigned_request_is_refused(sandbox):
    code = (
        "import urllib.request, urllib.error, os\n"
        "try: urllib.request.urlopen(os.environ['AWS_ENDPOINT_URL'], b'Action=DescribeRegions')\n"
        "except urllib.error.HTTPError as exc: print(exc.code, exc.read().decode())"
    )
    done = sandbox.run(["python3", "-c", code])
    assert done.stdout.startswith("403")
    assert "MissingAuthenticationToken" in done.stdout


def test_region_that_is_not_enabled_is_refused(aws):
    sts, ec2 = aws(("sts", "get_caller_identity", {}), ("ec2", "describe_regions", {}), region="af-south-1")
    assert [code_of(sts), code_of(ec2)] == ["InvalidClientTokenId", "AuthFailure"]


def test_role_policy_limits_what_the_role_may_do(sandbox, aws, role_credentials):
    statement = {"Effect": "Allow", "Action": ["ec2:DescribeImages"], "Resource": "*"}
    sandbox.policy({"Version": "2012-10-17", "Statement": [statement]})
    calls = ("ec2", "describe_images", {}), ("ec2", "describe_regions", {})
    answers = aws(*calls, keys=role_credentials())
    assert [code_of(answer) for answer in answers] == [None, "UnauthorizedOperation"]


@pytest.mark.parametrize("name", ["ab", "x" * 129, "a:b", "a+b", "a\nb", "ä-image", "", None])
def test_image_name_outside_the_rules_is_refused(ask, registration, name):
    (code,) = ask(("register_image", registration(Name=name)))
    assert code == ("InvalidAMIName.Malformed" if name else "MissingParameter")


@pytest.mark.parametrize("name", ["abc", "x" * 128, "A (b) [c] ./-'@_ 9"])
def test_image_name_within_the_rules_is_kept(sandbox, ask, registration, name):
    assert ask(("register_image", registration(Name=name))) == [None]
    assert [image["name"] for image in sandbox.account()["images"]] == [name]


def test_image_name_can_be_used_once_at_a_time(sandbox, ask, registration):
    arguments = registration()
    assert ask(("register_image", arguments), ("register_image", arguments)) == [None, "InvalidAMIName.Duplicate"]
    (image_id,) = sandbox.left()["images"]
    assert ask(("deregister_image", {"ImageId": image_id}), ("register_image", arguments)) == [None, None]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ebs": {"VolumeSize": 9}}, "InvalidBlockDeviceMapping"),
        ({"ebs": {"SnapshotId": "snap-0123456789abcdef0"}}, "InvalidSnapshot.NotFound"),
        ({"ebs": {"VolumeType": "ssd"}}, "InvalidParameterValue"),
        ({"RootDeviceName": "/dev/xvda"}, "InvalidBlockDeviceMapping"),
        ({"Architecture": "aarch64"}, "InvalidParameterValue"),
        ({"Architecture": "arm64"}, "InvalidParameterCombination"),
        ({"BootMode": "bios"}, "InvalidParameterValue"),
        ({"TpmSupport": "v2.0"}, "InvalidParameterCombination"),
        ({"TpmSupport": "v2.0", "BootMode": "legacy-bios"}, "InvalidParameterCombination"),
        ({"TpmSupport": "2.0", "BootMode": "uefi"}, "InvalidParameterValue"),
        ({"ImdsSupport": "2.0"}, "InvalidParameterValue"),
        ({"SriovNetSupport": "yes"}, "InvalidParameterValue"),
        ({"VirtualizationType": None}, "InvalidAMIAttributeValue"),
        ({"Description": "x" * 256}, "InvalidParameterValue"),
        ({"Architecture": "arm64", "EnaSupport": True, "BootMode": "uefi"}, None),
    ],
    ids=str,
)
def test_register_image_checks_all_arguments(ask, registration, changes, code):
    assert ask(("register_image", registration(**changes))) == [code]


def test_register_image_waits_for_the_snapshot(sandbox, ask, registration, disk, aws):
    sandbox.pace(snapshot_seconds=3600)
    (pending,) = aws(("ec2", "create_snapshot", {"VolumeId": disk["volume"]}))
    arguments = registration(ebs={"SnapshotId": pending["SnapshotId"]})
    assert ask(("register_image", arguments)) == ["IncorrectState"]
    (shown,) = aws(("ec2", "describe_snapshots", {"SnapshotIds": [pending["SnapshotId"]]}))
    assert shown["Snapshots"][0]["State"] == "pending"


def test_snapshot_of_an_image_cannot_be_deleted(sandbox, ask, registration, disk):
    delete = ("delete_snapshot", {"SnapshotId": disk["snapshot"]})
    assert ask(("register_image", registration()), delete) == [None, "InvalidSnapshot.InUse"]
    (image_id,) = sandbox.left()["images"]
    assert ask(("deregister_image", {"ImageId": image_id}), delete) == [None, None]


@pytest.mark.parametrize(
    "tag", [{"Key": "aws:x", "Value": "y"}, {"Key": "k" * 129, "Value": ""}, {"Key": "k", "Value": "v" * 257}]
)
def test_tag_outside_the_rules_is_refused(ask, disk, tag):
    assert ask(("create_tags", {"Resources": [disk["snapshot"]], "Tags": [tag]})) == ["InvalidParameterValue"]


def test_vpcs_are_limited_to_five(ask):
    # The default VPC and the sandbox's own are two of them.
    codes = ask(*[("create_vpc", {"CidrBlock": "10.0.0.0/16"})] * 4)
    assert codes == [None, None, None, "VpcLimitExceeded"]


def test_vpc_with_things_in_it_cannot_be_deleted(sandbox, aws, ask):
    (made,) = aws(("ec2", "create_vpc", {"CidrBlock": "10.0.0.0/16"}))
    vpc = {"VpcId": made["Vpc"]["VpcId"]}
    group, gateway = aws(
        ("ec2", "create_security_group", {"GroupName": "g", "Description": "d", **vpc}),
        ("ec2", "create_internet_gateway", {}),
    )
    gateway = {"InternetGatewayId": gateway["InternetGateway"]["InternetGatewayId"]}
    assert ask(
        ("delete_vpc", vpc),
        ("delete_security_group", {"GroupId": group["GroupId"]}),
        ("attach_internet_gateway", gateway | vpc),
        ("delete_vpc", vpc),
        ("detach_internet_gateway", gateway | vpc),
        ("delete_internet_gateway", gateway),
        ("delete_vpc", vpc),
    ) == ["DependencyViolation", None, None, "DependencyViolation", None, None, None]
    assert sandbox.left() == {}


def test_vpc_takes_one_gateway(sandbox, aws, ask):
    (made,) = aws(("ec2", "create_internet_gateway", {}))
    gateway = {"InternetGatewayId": made["InternetGateway"]["InternetGatewayId"]}
    vpc = {"VpcId": sandbox.description["vpc_id"]}
    assert ask(("attach_internet_gateway", gateway | vpc)) == ["InvalidParameterValue"]


def test_same_client_token_launches_one_instance(sandbox, launch):
    first, second = launch(ClientToken="t"), launch(ClientToken="t")
    assert first["Instances"][0]["InstanceId"] == second["Instances"][0]["InstanceId"]
    assert len(sandbox.left()["instances"]) == 1
    assert code_of(launch(ClientToken="t", InstanceType="t3.micro")) == "IdempotentParameterMismatch"


def test_network_of_a_living_instance_cannot_be_deleted(sandbox, aws, ask, launch):
    described = sandbox.description
    vpc = {"VpcId": described["vpc_id"]}
    of_vpc = [{"Name": "attachment.vpc-id", "Values": [described["vpc_id"]]}]
    group, gateways = aws(
        ("ec2", "create_security_group", {"GroupName": "g", "Description": "d", **vpc}),
        ("ec2", "describe_internet_gateways", {"Filters": of_vpc}),
    )
    gateway = {"InternetGatewayId": gateways["InternetGateways"][0]["InternetGatewayId"]}
    instance = launch(interface={"Groups": [group["GroupId"]]})["Instances"][0]["InstanceId"]
    calls = (
        ("delete_security_group", {"GroupId": group["GroupId"]}),
        ("delete_subnet", {"SubnetId": described["subnet_id"]}),
        ("detach_internet_gateway", gateway | vpc),
    )
    assert ask(*calls) == ["DependencyViolation"] * 3
    assert ask(("terminate_instances", {"InstanceIds": [instance]}), *calls) == [None] * 4


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"InstanceType": "t3.micro"}, None),
        ({"InstanceType": "t9.micro"}, "InvalidParameterValue"),
        ({"InstanceType": "t4g.micro"}, "InvalidParameterValue"),  # arm64
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"KeyName": "nobody's"}, "InvalidKeyPair.NotFound"),
        ({"Placement": {"AvailabilityZone": "us-east-1b"}}, "InvalidParameterValue"),
        ({"interface": {"SubnetId": "subnet-0123456789abcdef0"}}, "InvalidSubnetID.NotFound"),
        ({"interface": {"Groups": ["sg-0123456789abcdef0"]}}, "InvalidGroup.NotFound"),
    ],
    ids=str,
)
def test_run_instances_checks_all_arguments(launch, changes, code):
    assert code_of(launch(**changes)) == code


def test_nitro_instance_needs_an_image_with_ena(sandbox, ask, registration, launch):
    assert ask(("register_image", registration(EnaSupport=False))) == [None]
    (image_id,) = sandbox.left()["images"]
    assert code_of(launch(ImageId=image_id, InstanceType="t3.micro")) == "InvalidParameterCombination"
    assert code_of(launch(ImageId=image_id)) is None


def test_group_without_vpc_is_in_the_default_one(aws):
    group, vpcs = aws(
        ("ec2", "create_security_group", {"GroupName": "g", "Description": "d", "VpcId": ""}),
        ("ec2", "describe_vpcs", {"Filters": [{"Name": "is-default", "Values": ["true"]}]}),
    )
    (groups,) = aws(("ec2", "describe_security_groups", {"GroupIds": [group["GroupId"]]}))
    assert groups["SecurityGroups"][0]["VpcId"] == vpcs["Vpcs"][0]["VpcId"]


def test_volume_is_attached_once_and_not_deleted_while_it_is(ask, disk, launch):
    instance = launch()["Instances"][0]["InstanceId"]
    volume = {"VolumeId": disk["volume"]}
    attach = ("attach_volume", {**volume, "InstanceId": instance, "Device": "/dev/sdf"})
    assert ask(
        attach,
        attach,
        ("delete_volume", volume),
        ("detach_volume", volume),  # without the instance, which moto alone does not survive
        ("detach_volume", volume),
        ("delete_volume", volume),
    ) == [None, "VolumeInUse", "VolumeInUse", None, "IncorrectState", None]


def test_volume_is_let_go_by_an_instance_that_ends(ask, disk, launch):
    instance = launch()["Instances"][0]["InstanceId"]
    volume = {"VolumeId": disk["volume"]}
    assert ask(
        ("attach_volume", {**volume, "InstanceId": instance, "Device": "/dev/sdf"}),
        ("terminate_instances", {"InstanceIds": [instance]}),
        ("delete_volume", volume),
    ) == [None, None, None]


def test_volume_of_another_zone_or_name_in_use_is_not_attached(sandbox, aws, ask, disk, launch):
    instance = launch()["Instances"][0]["InstanceId"]
    (other,) = aws(("ec2", "create_volume", {"Size": 1, "AvailabilityZone": "us-east-1b"}))
    assert ask(
        ("attach_volume", {"VolumeId": other["VolumeId"], "InstanceId": instance, "Device": "/dev/sdf"}),
        ("attach_volume", {"VolumeId": disk["volume"], "InstanceId": instance, "Device": "/dev/sda1"}),
        ("create_volume", {"SnapshotId": disk["snapshot"], "Size": 9, "AvailabilityZone": "us-east-1a"}),
    ) == ["InvalidVolume.ZoneMismatch", "InvalidParameterValue", "InvalidParameterValue"]


def test_fault_delays_and_loses_answers(sandbox, aws, disk):
    sandbox.faults(
        {"action": "CreateTags", "delay_seconds": 0.5},
        {"action": "DeleteVolume", "lose_answer": True},
    )
    tag = ("create_tags", {"Resources": [disk["snapshot"]], "Tags": [{"Key": "k", "Value": "v"}]})
    assert aws(("ec2", *tag)) == [{}]
    assert sandbox.calls("CreateTags") == []  # calls of the auditor are left out
    (lost,) = aws(("ec2", "delete_volume", {"VolumeId": disk["volume"]}))
    assert code_of(lost) == "ConnectionClosedError"
    assert "volumes" not in sandbox.left()


def test_instance_that_never_booted_has_no_console_output(aws, launch):
    instance_id = launch()["Instances"][0]["InstanceId"]
    (answer,) = aws(("ec2", "get_console_output", {"InstanceId": instance_id}))
    assert answer["InstanceId"] == instance_id
    assert "Output" not in answer
