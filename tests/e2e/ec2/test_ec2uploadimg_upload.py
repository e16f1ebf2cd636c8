"""One upload, with a double of ec2uploadimg and an AWS of moto's; see also test_ec2uploadimg_contract.py."""

import datetime
import functools
import hashlib
import json
import signal
import stat
import sys
import time
import types
from pathlib import Path

import boto3
import moto.server
import pytest
from fakes.ec2_upload import undone
from moto.core import DEFAULT_ACCOUNT_ID as ACCOUNT_ID
from moto.ec2.models import ec2_backends
from samples.uploads import make_upload_request

from clouduploader.errors import (
    ClouduploaderError,
    ConfigError,
    ImageError,
    PlatformReplyError,
    StoppedError,
    TargetDataError,
)
from clouduploader.model.disk import DiskFormat, ImageFacts
from clouduploader.platforms.ec2 import Ec2, image_spec, labels, plan, settings
from clouduploader.platforms.ec2.context import Ec2Context
from clouduploader.platforms.ec2.ec2uploadimg import command, helper_config, upload
from clouduploader.plugin import (
    BytesMoved,
    CloudObject,
    Context,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
    PlatformContext,
    Shortfall,
    UploadContext,
)
from clouduploader.plugin.testing import FakeClock, MemoryJournal, RecordingReporter
from clouduploader.store import journal as journals
from clouduploader.util.cancel import Cancel

DOUBLE = Path(__file__).parents[2] / "fakes" / "ec2uploadimg.py"
REGION = "eu-west-1"
SHA256 = hashlib.sha256(bytes(5000)).hexdigest()  # of the image
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


@functools.cache  # to make one takes a tenth of a second
def client(url, region=REGION):
    return boto3.client("ec2", region_name=region, endpoint_url=url, aws_access_key_id="A", aws_secret_access_key="x")


@pytest.fixture
def account(aws, monkeypatch):
    """A client of the account; no image of earlier tests is in it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws[0])
    ec2 = client(aws[0])
    for left in ec2.describe_images(Owners=["self"])["Images"]:
        ec2.deregister_image(ImageId=left["ImageId"])
    return ec2


@pytest.fixture
def record():
    """A reporter that keeps what it is told."""
    return RecordingReporter()


@pytest.fixture
def make_upload(aws, account, tmp_path, record):
    """A factory of an upload; `code` is put into the double of ec2uploadimg where the key says."""

    def make(
        *,
        code=None,
        cancel=None,
        config=None,
        is_by_hand=False,
        arch="x86_64",
        what=None,
        request=None,
        **targetdata,
    ):
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
        request = make_upload_request(
            image,
            work_dir,
            job_name="42",
            arch=arch,
            targetdata={key: value for key, value in data.items() if value is not None},
            is_by_hand=is_by_hand,
            **(request or {}),
        )
        given = {**settings.DEFAULTS, "ec2uploadimg": str(script), "grace_seconds": "60", **(config or {})}
        environment = {"AWS_ENDPOINT_URL": aws[0], "PATH": "/usr/bin"}
        platform = Ec2(PlatformContext(home=home, settings=given, environment=environment))
        ctx = UploadContext(platform, request, record, cancel or Cancel(), clock=FakeClock())
        if what is plan.make:
            return plan.make(Ec2Context(ctx, settings.read(given)), platform._context)
        if what is upload.HelperUpload:
            program = command.HelperProgram(script, sys.executable)
            helper = helper_config.HelperInstance(aws[1], "t2.micro", "ec2-user")
            return upload.HelperUpload(Ec2Context(ctx, settings.read(given)), program, helper, environment)
        return types.SimpleNamespace(run=undone(ctx, lambda: platform.upload(ctx)))

    return make


def existing(record):
    """What was created and not removed, by kind."""
    return sorted(thing.kind for thing in record.existing)


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
    result = make_upload(code={"# AT READ": "time.sleep(1.2)"}).run()  # a look at the open file comes each second
    assert result.id.startswith("ami-")
    assert result.objects[0] == CloudObject("image", result.id, REGION)
    assert [thing.kind for thing in result.objects] == ["image", "snapshot"]
    phases = [event.phase for event in record.events if isinstance(event, PhaseStarted)]
    assert phases == ["authenticate", "check image", "prepare", "upload", "snapshot"]
    assert BytesMoved(1000, 5000) in record.events
    assert "Successfully authenticated." in record.lines
    assert f"Created image:  {result.id}" in record.lines
    assert in_account(account) == []
    assert any(line.startswith("ec2 CreateVpc: 200 in ") for line in record.lines)


def test_tool_gets_a_private_home_with_a_private_configuration(make_upload, record, tmp_path):
    code = """
import json, os, stat
say(json.dumps([os.environ["HOME"], given.file, oct(os.stat(given.file).st_mode)]))
sys.exit("told")
"""
    with pytest.raises(PlatformReplyError, match="told"):
        make_upload(code={"# AT START": code}).run()
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


def test_failure_after_the_image_was_made_falls_short_of_a_success(make_upload, account, record):
    result = make_upload(code={"# AT END": "sys.exit('no delete')"}).run()
    (shortfall,) = result.shortfalls
    assert shortfall == Shortfall(REGION, f"ec2uploadimg made {result.id}, but failed afterwards: no delete")
    assert in_account(account) == []
    assert existing(record) == ["image", "snapshot"]
    assert len(account.describe_images(Owners=["self"])["Images"]) == 1


def test_stop_removes_everything_even_a_finished_image(make_upload, account, record):
    cancel = Cancel()
    process = make_upload(cancel=cancel, code={"# AT END": "say('finished'); time.sleep(600)"})
    line = record.line

    def stop_at_end(text):
        line(text)
        if text == "finished":
            cancel.request(signal.SIGTERM)

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
        make_upload(what=upload.HelperUpload)._judge(upload.ec2uploadimg_process.HelperExit(-15, (), True))
    assert "session_seconds" in caught.value.hint


@pytest.mark.parametrize(("seconds", "expected"), [(3600, 3300), (100, 0), (-5, 0)])
def test_deadline_is_five_minutes_before_the_credentials_expire(make_upload, seconds, expected):
    expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    found = make_upload(what=upload.HelperUpload)._deadline(upload.AccessKeys("A", "x", "t", expires))
    assert found - time.monotonic() == pytest.approx(expected, abs=60)
    assert upload.HelperUpload._deadline(None, upload.AccessKeys("A", "x")) is None


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
    request = make_upload_request(tmp_path, tmp_path, arch=arch, targetdata=data)
    assert image_spec.machine(request) == expected


def test_plan_says_each_step(make_upload, account, aws):
    found = make_upload(what=plan.make)
    steps = found.steps
    assert steps[0] == f"assume role {ARN}"
    assert f"start a helper instance (t2.micro, {aws[1]}) in {REGION}" in steps
    assert any("5000 bytes to a volume of 10 GiB" in step for step in steps)
    assert any("'my image' for x86_64" in step for step in steps)
    assert [cost.what for cost in found.costs] == ["storage of 1 snapshot of 0.00 GiB"]
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


def test_plan_tells_of_the_image_that_an_earlier_upload_made(make_upload, make_image):
    image = make_image({labels.KEY: "f" * 32, labels.SHA256: SHA256})
    found = make_upload(what=plan.make, share=["210987654321"], description="other words", root_volume_size=15)
    assert found.steps[1:] == (
        f"take {image}, which is already there: an earlier upload of this image made it",
        "change its description from 'uploaded by clouduploader' to 'other words'",
        "share it with 210987654321",
        "share its snapshots with 210987654321",
    )
    assert found.costs == ()


def test_plan_finds_a_helper_that_is_not_there(account, record, tmp_path):
    platform = Ec2(PlatformContext(home=tmp_path, settings={}, environment={}))
    with pytest.raises(ClouduploaderError, match="helper AMI"):
        helper_config.check_ami(Context(platform, {}, record, Cancel()), account, "ami-00000000", REGION)


@pytest.fixture
def make_image(account):
    """A factory of an image that is in the account, with these tags, for x86_64."""

    def make(image_tags):
        words = "uploaded by clouduploader"
        image = account.register_image(Name="my image", Description=words, RootDeviceName="/dev/sda1")["ImageId"]
        made = ec2_backends[ACCOUNT_ID][REGION].amis[image]
        made.architecture, made.ena_support, made.sriov_net_support = "x86_64", True, "simple"  # what moto drops
        made.imds_support, made.boot_mode = "v2.0", None
        if image_tags:
            account.create_tags(Resources=[image], Tags=labels.as_list(image_tags))
        return image

    return make


def test_image_of_an_earlier_upload_of_this_file_is_the_result(make_upload, make_image, record):
    image = make_image({labels.KEY: "f" * 32, labels.SHA256: SHA256})
    result = make_upload(code={"# AT SETUP": "sys.exit('started')"}, root_volume_size=15).run()
    assert (result.id, result.objects[0]) == (image, CloudObject("image", image, REGION))
    assert [thing.kind for thing in result.objects] == ["image", "snapshot"]
    assert result.is_already_there
    assert f"{image} is already there: it has that name and this very content." in record.lines
    assert not any(isinstance(event, ObjectCreated) for event in record.events)


@pytest.mark.parametrize(
    ("image_tags", "arch", "words"),
    [
        ({}, "x86_64", r"image of that name already \(ami-\w+\)$"),
        ({labels.SHA256: "0" * 64}, "x86_64", f"of SHA-256 {'0' * 64}, this one has [0-9a-f]{{64}}$"),
        ({labels.SHA256: "right"}, "aarch64", "its architecture is x86_64, that of this one arm64"),
    ],
)
def test_name_of_another_image_is_refused_before_anything_is_made(
    make_upload, make_image, record, image_tags, arch, words
):
    make_image({name: value.replace("right", SHA256) for name, value in image_tags.items()})
    with pytest.raises(PlatformReplyError, match=words):
        make_upload(arch=arch).run()
    assert not any(isinstance(event, ObjectCreated) for event in record.events)


def test_what_an_earlier_try_left_is_removed_first(make_upload, account, record, tmp_path):
    group = account.create_security_group(GroupName="left", Description="x")["GroupId"]
    other = account.create_security_group(GroupName="right", Description="x")["GroupId"]
    journal = make_upload_request(tmp_path, tmp_path).journal
    for thing_id in (group, other):
        journal.write("made", kind="security group", id=thing_id, region=REGION)
    journal.write("removed", kind="security group", id=other, region=REGION)
    with pytest.raises(ClouduploaderError):
        make_upload(request={"journal": journal}, code={"# AT SETUP": "sys.exit(1)"}).run()
    assert group not in in_account(account)
    assert other in in_account(account)
    account.delete_security_group(GroupId=other)


@pytest.fixture
def kept_journal(tmp_path, record):
    """A journal that is told of what is made and removed, as by the runner."""
    record.journal = MemoryJournal(tmp_path / "journal")
    return record.journal


def test_all_that_is_made_is_asked_for_in_the_journal_and_bears_the_key(make_upload, kept_journal, account):
    journal = kept_journal
    result = make_upload(request={"journal": journal}).run()
    state = journals.state_of(journal.entries())
    assert set(state.objects) == set(result.objects)
    assert state.asked == ()
    entries = [(entry["what"], entry.get("kind")) for entry in journal.entries()]
    kinds = [kind for what, kind in entries if what == "made"]
    assert {"key pair", "vpc", "subnet", "instance", "volume", "snapshot", "image"} == set(kinds)
    for kind in kinds:
        assert entries.index(("asked", kind)) < entries.index(("made", kind))
    filters = [{"Name": "tag:clouduploader:key", "Values": [journal.key]}]
    tagged = {snapshot["SnapshotId"] for snapshot in account.describe_snapshots(Filters=filters)["Snapshots"]}
    assert {thing.id for thing in result.objects if thing.kind == "snapshot"} <= tagged


def test_thing_whose_answer_was_lost_is_found_and_removed(make_upload, kept_journal, account, record):
    """ec2uploadimg is killed after AWS made a subnet, and before anybody read its id."""
    journal = kept_journal
    line = (
        "import os; ec2.meta.events.register_first('after-call.ec2.CreateSubnet', lambda **_: os.kill(os.getpid(), 9))"
    )
    with pytest.raises(ClouduploaderError):
        make_upload(request={"journal": journal}, code={"# AT SETUP": line}).run()
    assert existing(record) == []
    assert in_account(account) == []
    assert "subnet" in {event.object.kind for event in record.events if isinstance(event, ObjectRemoved)}
    state = journals.state_of(journal.entries())
    assert (state.asked, dict(state.objects)) == ((), {})


def test_what_was_asked_for_and_does_not_show_stays_in_the_journal(make_upload, kept_journal, account, record):
    journal = kept_journal
    line = "import os; ec2.meta.events.register('before-send.ec2.CreateSubnet', lambda **_: os.kill(os.getpid(), 9))"
    with pytest.raises(ClouduploaderError):
        make_upload(request={"journal": journal}, code={"# AT SETUP": line}).run()
    assert [entry["kind"] for entry in journals.state_of(journal.entries()).asked] == ["subnet"]
    assert any(line.startswith("Asked for without an answer, and not visible yet: subnet") for line in record.lines)
    assert in_account(account) == []


def test_things_of_a_dead_try_that_never_got_into_the_journal_are_removed(make_upload, kept_journal, account):
    journal = kept_journal
    for _ in range(2):
        journal.write("begin")
    tags = [{"Key": "clouduploader:key", "Value": journal.key}]
    volume = account.create_volume(
        Size=1, AvailabilityZone=f"{REGION}a", TagSpecifications=[{"ResourceType": "volume", "Tags": tags}]
    )["VolumeId"]
    make_upload(request={"journal": journal}).run()
    assert volume not in in_account(account)


def facts(**changes):
    values = {
        "disk_format": DiskFormat.RAW, "size_bytes": 5000, "is_size_exact": True, "partition_table": "gpt",
        "minimum_bytes": 5000, "architectures": ("x86_64",), "boots_uefi": True, "boots_bios": True,
    }  # fmt: skip
    return {"inspect_image": lambda: ImageFacts(**(values | changes))}


TELL = {"# AT START": "sys.exit(f'machine {given.machine}, boot mode {given.boot_mode}')"}


@pytest.mark.parametrize(
    ("arch", "found", "data", "expected"),
    [
        (None, {"architectures": ("arm64",), "boots_bios": False}, {}, "machine arm64, boot mode uefi"),
        (None, {"architectures": ()}, {}, "machine x86_64, boot mode uefi-preferred"),
        (
            "x86_64",
            {"partition_table": None, "boots_uefi": False, "boots_bios": False},
            {},
            "machine x86_64, boot mode None",
        ),
        ("x86_64", {"boots_uefi": False}, {}, "machine x86_64, boot mode legacy-bios"),
        ("x86_64", {}, {}, "machine x86_64, boot mode uefi-preferred"),
        ("x86_64", {}, {"tpm_support": "2.0"}, "machine x86_64, boot mode uefi"),
        ("x86_64", {"boots_bios": False}, {}, "machine x86_64, boot mode uefi"),
        ("x86_64", {}, {"boot_mode": "uefi-preferred"}, "machine x86_64, boot mode uefi-preferred"),
        ("x86_64", {"architectures": ("i386",)}, {}, "machine x86_64, boot mode legacy-bios"),
        ("x86_64", {"architectures": ("arm64",)}, {"force": True}, "machine x86_64, boot mode legacy-bios"),
    ],
)
def test_image_is_registered_to_boot_as_it_can(make_upload, record, arch, found, data, expected):
    with pytest.raises(PlatformReplyError, match=expected):
        make_upload(arch=arch, request=facts(**found), code=TELL, **data).run()
    assert expected in record.lines


@pytest.mark.parametrize(
    ("arch", "found", "data", "error", "words"),
    [
        ("x86_64", {"architectures": ("arm64",)}, {}, ImageError, "the job is for x86_64, but .* for arm64"),
        (None, {}, {"architecture": "arm64"}, TargetDataError, "architecture: found arm64, but .* for x86_64"),
        ("x86_64", {"boots_uefi": False}, {"boot_mode": "uefi"}, TargetDataError, "has no EFI boot loader"),
    ],
)
def test_image_that_is_not_what_is_said_is_refused(make_upload, record, arch, found, data, error, words):
    with pytest.raises(error, match=words):
        make_upload(arch=arch, request=facts(**found), **data).run()
    assert not any(isinstance(event, ObjectCreated) for event in record.events)


def test_role_that_may_not_tag_is_told(make_upload, record):
    process = make_upload(what=upload.HelperUpload)
    refusal = {
        "operation": "CreateVpc", "code": "UnauthorizedOperation", "message": "No.", "status": 403, "milliseconds": 1,
        "request_id": "x", "date": "",
    }  # fmt: skip
    for line in ({"asked": "CreateVpc"}, refusal, {"asked": "CreateVpc"}):
        process._take_call(json.dumps(line).encode())
    (line,) = [line for line in record.lines if line.startswith("Warning: ")]
    assert line.startswith("Warning: CreateVpc was denied with tags, and is tried without")
    assert "ec2:CreateTags" in line


def test_result_has_what_was_done_beyond_the_image_and_what_failed(make_upload, aws):
    other = client(aws[0], "eu-west-3").register_image(Name="my image", RootDeviceName="/dev/sda1")["ImageId"]
    sha256 = [{"Key": labels.SHA256, "Value": "0" * 64}]  # of an upload of ours, and of other content
    client(aws[0], "eu-west-3").create_tags(Resources=[other], Tags=sha256)
    result = make_upload(share=["123456789012"], regions=["eu-west-2", "eu-west-3"]).run()
    assert result.objects[0].id == result.id
    assert ("image", "eu-west-2") in [(thing.kind, thing.region) for thing in result.objects]
    (shortfall,) = result.shortfalls
    assert shortfall.subject == "eu-west-3"
    assert "image of that name already" in shortfall.reason
