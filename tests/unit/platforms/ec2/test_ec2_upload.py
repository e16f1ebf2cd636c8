"""One upload, with a double of ec2uploadimg and an AWS of moto's. The contract suite tries the rest."""

import datetime
import json
import signal
import stat
import sys
import time
from pathlib import Path

import boto3
import moto.server
import pytest

from clouduploader.errors import ClouduploaderError, ConfigError, PlatformReplyError, StoppedError, TargetDataError
from clouduploader.platform import (
    BytesMoved,
    CloudObject,
    Image,
    ObjectCreated,
    ObjectRemoved,
    Packing,
    PhaseStarted,
    PlatformContext,
    UploadRequest,
)
from clouduploader.platforms.ec2 import plan, settings, upload
from clouduploader.stop import Stop

DOUBLE = Path(__file__).parents[3] / "data" / "ec2uploadimg.py"
REGION = "eu-west-1"
ARN = "arn:aws:iam::123456789012:role/obs"


@pytest.fixture(scope="module")
def aws():
    """An AWS of moto's: its URL, and an AMI that helpers can use."""
    server = moto.server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    yield url, client(url).describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    server.stop()


def client(url):
    return boto3.client("ec2", region_name=REGION, endpoint_url=url, aws_access_key_id="A", aws_secret_access_key="x")


@pytest.fixture
def account(aws, monkeypatch):
    """A client of the account; no image of earlier tests is in it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws[0])
    ec2 = client(aws[0])
    for left in ec2.describe_images(Owners=["self"])["Images"]:
        ec2.deregister_image(ImageId=left["ImageId"])
    return ec2


@pytest.fixture
def make_upload(aws, account, tmp_path, record):
    """A factory of an upload; `code` is put into the double of ec2uploadimg where the key says."""

    def make(*, code=None, stop=None, config=None, is_by_hand=False, arch="x86_64", what=upload.Upload, **targetdata):
        home = tmp_path / "home"
        (home / ".aws").mkdir(parents=True)
        (home / ".aws" / "credentials").write_text(
            "[default]\naws_access_key_id = AKIAHOME\naws_secret_access_key = SECRET\n"
        )
        (home / ".ec2utils.conf").write_text(
            f"[region-{REGION}]\nami = {aws[1]}\ninstance_type = t2.micro\nuser = ec2-user\n"
        )
        text = DOUBLE.read_text().replace("{python}", sys.executable)
        for mark, line in (code or {}).items():
            assert mark in text
            text = text.replace(mark, line)
        script = tmp_path / "ec2uploadimg"
        script.write_text(text)
        script.chmod(0o755)
        image = tmp_path / "a.raw"
        image.write_bytes(bytes(5000))
        work_dir = tmp_path / "work"
        work_dir.mkdir(mode=0o700)
        data = {"region": REGION, "ami_name": "my image", "arn": ARN, "external_id": "ext"} | targetdata
        request = UploadRequest(
            user="tom",
            job_name="42",
            arch=arch,
            image=Image(image, "a.raw", Packing.RAW, 5000),
            targetdata={key: value for key, value in data.items() if value is not None},
            work_dir=work_dir,
            is_by_hand=is_by_hand,
            measure_image=lambda: 5000,
        )
        values = settings.read({"ec2uploadimg": str(script), "grace_seconds": "60"} | (config or {}))
        context = PlatformContext(home=home, settings={}, environment={"AWS_ENDPOINT_URL": aws[0], "PATH": "/usr/bin"})
        if what is plan.make:
            return plan.make(context, values, request=request, reporter=record)
        return upload.Upload(context, values, request=request, reporter=record, stop=stop or Stop())

    return make


def existing(record):
    """What was created and not removed, by kind."""
    things = {}
    for event in record.events:
        if isinstance(event, ObjectCreated):
            things[event.object] = None
        elif isinstance(event, ObjectRemoved):
            things.pop(event.object, None)
    return sorted(thing.kind for thing in things)


def in_account(ec2):
    """What should never be left there."""
    instances = [item for group in ec2.describe_instances()["Reservations"] for item in group["Instances"]]
    return [
        *(item["KeyName"] for item in ec2.describe_key_pairs()["KeyPairs"]),
        *(item["VpcId"] for item in ec2.describe_vpcs()["Vpcs"] if not item["IsDefault"]),
        *(item["InstanceId"] for item in instances if item["State"]["Name"] != "terminated"),
        *(item["VolumeId"] for item in ec2.describe_volumes()["Volumes"]),
        *(
            item["GroupId"]
            for item in ec2.describe_security_groups()["SecurityGroups"]
            if item["GroupName"] != "default"
        ),
    ]


def test_upload_gives_the_image_and_tells_all_on_the_way(make_upload, account, record):
    result = make_upload().run()
    assert result.id.startswith("ami-")
    assert result.objects[0] == CloudObject("image", result.id, REGION)
    assert [thing.kind for thing in result.objects] == ["image", "snapshot"]
    phases = [event.phase for event in record.events if isinstance(event, PhaseStarted)]
    assert phases == ["authenticate", "check image", "prepare", "upload", "snapshot"]
    assert BytesMoved(1000, 5000) in record.events
    assert "Successfully authenticated." in record.lines
    assert f"Created image:  {result.id}" in record.lines
    assert in_account(account) == []
    assert any(line.startswith("ec2 CreateVpc: 200 in ") for line in record.details)


def test_tool_gets_a_private_home_with_a_private_configuration(make_upload, record, tmp_path):
    code = (
        """import json, os, stat; say(json.dumps([os.environ["HOME"], given.file, oct(os.stat(given.file).st_mode)]))"""
    )
    make_upload(code={"# AT SETUP": code}).run()
    (line,) = [line for line in record.lines if line.startswith('["')]
    assert json.loads(line) == [str(tmp_path / "work"), str(tmp_path / "work" / ".ec2utils.conf"), "0o100600"]
    assert stat.S_IMODE((tmp_path / "work" / ".ec2utils.conf").stat().st_mode) == 0o600


def test_failure_has_the_cause_and_leaves_nothing(make_upload, account, record):
    code = {"# AT UPLOAD": "say('Unable to find raw image file with .raw extension'); sys.exit(1)"}
    with pytest.raises(PlatformReplyError, match="Unable to find raw image file"):
        make_upload(code=code).run()
    assert in_account(account) == []
    assert existing(record) == []


def test_refusal_of_aws_is_the_cause_and_not_what_followed(make_upload, account):
    code = """
try:
    ec2.describe_subnets(SubnetIds=["subnet-00000000"])
except Exception:
    try:
        ec2.detach_internet_gateway(InternetGatewayId="igw-00000000", VpcId=vpc)
    except Exception:
        say("Unable to clean up")
    sys.exit(1)
"""
    with pytest.raises(ConfigError, match=r"the subnet does not exist .*DescribeSubnets"):
        make_upload(code={"# AT SETUP": code}).run()
    assert in_account(account) == []


def test_end_without_an_image_is_a_failure_even_with_exit_status_0(make_upload, account):
    with pytest.raises(PlatformReplyError, match="ended without an image"):
        make_upload(code={"# AT SETUP": "print('Created image: None', file=sys.stderr); sys.exit(0)"}).run()
    assert in_account(account) == []


def test_image_that_was_made_before_a_failure_is_kept_and_told(make_upload, account, record):
    with pytest.raises(PlatformReplyError, match=r"made ami-\w+, but failed afterwards: no delete"):
        make_upload(code={"# AT END": "sys.exit('no delete')"}).run()
    assert in_account(account) == []
    assert existing(record) == ["image", "snapshot"]
    assert len(account.describe_images(Owners=["self"])["Images"]) == 1


def test_stop_removes_everything_even_a_finished_image(make_upload, account, record):
    stop = Stop()
    process = make_upload(stop=stop, code={"# AT END": "say('finished'); time.sleep(600)"})
    line = record.line

    def stop_at_end(text):
        line(text)
        if text == "finished":
            stop.request(signal.SIGTERM)

    record.line = stop_at_end
    with pytest.raises(StoppedError):
        process.run()
    assert in_account(account) == []
    assert existing(record) == []
    assert account.describe_images(Owners=["self"])["Images"] == []


def test_upload_in_a_subnet_gets_a_group_of_ours_in_its_vpc(make_upload, account, record):
    vpc = account.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnet = account.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"][0]["SubnetId"]
    code = """
import json
group = ec2.describe_security_groups(GroupIds=[given.security_group_ids])["SecurityGroups"][0]
rule = group["IpPermissions"][0]
say(json.dumps([group["VpcId"], rule["FromPort"], rule["ToPort"], rule["IpRanges"][0]["CidrIp"]]))
"""
    make_upload(code={"# AT SETUP": code}, vpc_subnet_id=subnet, config={"ssh_cidr": "10.0.0.0/8"}).run()
    assert json.dumps([vpc, 22, 22, "10.0.0.0/8"]) in record.lines
    assert in_account(account) == []


def test_subnet_that_is_not_there_is_an_error(make_upload, account):
    with pytest.raises(ClouduploaderError, match="the subnet does not exist"):
        make_upload(vpc_subnet_id="subnet-00000000").run()
    assert in_account(account) == []


def test_run_that_was_stopped_at_the_deadline_is_told_as_such(make_upload):
    with pytest.raises(PlatformReplyError, match="temporary credentials were about to expire") as caught:
        make_upload()._judge(upload.child.Ending(-15, (), True))
    assert "session_seconds" in caught.value.hint


@pytest.mark.parametrize(("seconds", "expected"), [(3600, 3300), (100, 0), (-5, 0)])
def test_deadline_is_five_minutes_before_the_credentials_expire(make_upload, seconds, expected):
    expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    found = make_upload()._deadline(upload.Keys("A", "x", "t", expires))
    assert found - time.monotonic() == pytest.approx(expected, abs=60)
    assert upload.Upload._deadline(None, upload.Keys("A", "x")) is None


def test_nobody_uploads_into_the_account_of_the_service(make_upload, account):
    with pytest.raises(TargetDataError, match="no AWS role configured"):
        make_upload(arn=None, external_id=None).run()
    assert account.describe_images(Owners=["self"])["Images"] == []


def test_person_uploads_with_his_own_credentials(make_upload, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOWN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "own")
    assert make_upload(arn=None, external_id=None, is_by_hand=True).run().id.startswith("ami-")


def test_image_of_an_architecture_that_ec2_lacks_is_refused(make_upload):
    with pytest.raises(TargetDataError, match="no machines of architecture s390x"):
        make_upload(arch="s390x").run()


@pytest.mark.parametrize(
    ("arch", "data", "expected"),
    [
        ("aarch64", {}, "arm64"),
        ("i586", {}, "i386"),
        (None, {}, "x86_64"),
        ("s390x", {"architecture": "arm64"}, "arm64"),
    ],
)
def test_machine_is_amazons_word(tmp_path, arch, data, expected):
    request = UploadRequest(
        user="tom", job_name=None, arch=arch, image=Image(tmp_path, "a", Packing.RAW, 1), targetdata=data,
        work_dir=tmp_path, is_by_hand=False, measure_image=lambda: 1,
    )  # fmt: skip
    assert upload.machine(request) == expected


def test_plan_says_each_step(make_upload, account, aws):
    steps = make_upload(what=plan.make)
    assert steps[0] == f"assume role {ARN}"
    assert f"start a helper instance (t2.micro, {aws[1]}) in {REGION}" in steps
    assert any("5000 bytes to a volume of 10 GiB" in step for step in steps)
    assert any("'my image' for x86_64" in step for step in steps)
    assert in_account(account) == []


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"vpc_subnet_id": "subnet-00000000"}, TargetDataError, "there is no subnet-00000000"),
        ({"arn": None}, TargetDataError, "no AWS role"),
        ({"root_volume_size": 700}, TargetDataError, "root_volume_size: found 700"),
        ({"region": "us-east-1"}, ConfigError, "region us-east-1 is not configured"),
    ],
)
def test_plan_finds_what_the_upload_would_fail_with(make_upload, changes, error, words):
    with pytest.raises(error, match=words):
        make_upload(what=plan.make, **changes)


def test_plan_finds_a_name_that_is_taken(make_upload, account):
    image = account.register_image(Name="my image", RootDeviceName="/dev/sda1")["ImageId"]
    with pytest.raises(PlatformReplyError, match=f"image of that name already .*{image}"):
        make_upload(what=plan.make)


def test_plan_finds_a_helper_that_is_not_there(account):
    with pytest.raises(ClouduploaderError, match="helper AMI"):
        plan.check_helper(account, "ami-00000000", REGION)
