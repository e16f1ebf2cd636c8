import importlib.machinery
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import (
    CredentialsError,
    DeniedError,
    ImageError,
    MissingProgramError,
    PlatformReplyError,
)
from clouduploader.model.disk import Compression, Image
from clouduploader.platforms.ec2 import aws_errors, cleanup, image_spec, settings
from clouduploader.platforms.ec2.ec2uploadimg import command, helper_config
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import CloudObject
from clouduploader.util import filenames

REGION = "eu-west-1"
INSTALLED = shutil.which("ec2uploadimg", path=Path(sys.executable).parent)
TARBALLS = {
    Compression.TAR: ".tar",
    Compression.XZ: ".tar.xz",
    Compression.GZIP: ".tar.gz",
    Compression.BZIP2: ".tar.bz2",
}
PLAIN = {Compression.RAW: ".raw", Compression.XZ: ".raw.xz"}


@pytest.fixture(scope="session")
def parse():
    """The real parser of the installed ec2uploadimg: from arguments to what it makes of them."""
    loader = importlib.machinery.SourceFileLoader("ec2uploadimg_script", INSTALLED)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    is_writing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = is_writing

    def parse_args(words):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it leaves its file VERSION open
            return module.parse_args(words)

    return parse_args


@pytest.fixture
def make_script(tmp_path):
    """A factory of an executable file called ec2uploadimg with this first line."""

    def make(first_line, *, mode=0o755):
        path = tmp_path / "bin" / "ec2uploadimg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(first_line if isinstance(first_line, bytes) else f"{first_line}\nprint(1)\n".encode())
        path.chmod(mode)
        return path

    return make


def test_installed_tool_is_found_with_its_python():
    found = command.find("ec2uploadimg", str(Path(sys.executable).parent))
    assert found.script == Path(INSTALLED)
    assert Path(found.interpreter).samefile(sys.executable)


@pytest.mark.parametrize(
    ("first_line", "interpreter"),
    [
        ("#!{venv}/python3", "{venv}/python3"),
        ("#! {venv}/python3 -I", "{venv}/python3"),
        ("#!/usr/bin/env python3", "{venv}/python3"),
        ("#!/usr/bin/env -S python3 -I", "{venv}/python3"),
        ("#!{venv}/python3.11", "{venv}/python3.11"),
    ],
)
def test_interpreter_is_that_of_the_first_line(make_script, tmp_path, first_line, interpreter):
    venv = tmp_path / "venv"
    venv.mkdir()
    for name in ("python3", "python3.11"):
        (venv / name).symlink_to(sys.executable)
    script = make_script(first_line.format(venv=venv))
    found = command.find(str(script), str(venv))
    assert found == command.HelperProgram(script, interpreter.format(venv=venv))
    assert command.find("ec2uploadimg", f"{script.parent}:{venv}") == found


@pytest.mark.parametrize(
    "first_line",
    [
        "",
        "#!/bin/sh",
        "#!/usr/bin/env -S bash",
        "#!/usr/bin/perl",
        "#!/bin/sh python3",
        b"\x7fELF\x02\x01\x01\0python3",
        b"#!\xff\n",
    ],
)
def test_what_is_no_python_script_is_refused(make_script, first_line):
    script = make_script(first_line)
    with pytest.raises(MissingProgramError, match=rf"{script} is not a Python script"):
        command.find(str(script), "")


def test_interpreter_that_is_not_there_is_named(make_script):
    with pytest.raises(MissingProgramError, match="is run by /opt/none/bin/python3, which is not installed"):
        command.find(str(make_script("#!/opt/none/bin/python3")), "")


def test_interpreter_whose_name_is_no_text_is_refused(make_script):
    with pytest.raises(MissingProgramError):
        command.find(str(make_script(b"#!/\xff/python3\n")), "")


@pytest.mark.parametrize("name", ["ec2uploadimg", "/opt/none/ec2uploadimg"])
def test_missing_tool_is_named(tmp_path, name):
    with pytest.raises(MissingProgramError, match=f"{name} is not installed"):
        command.find(name, str(tmp_path))


def test_file_that_may_not_be_run_is_not_the_tool(make_script):
    with pytest.raises(MissingProgramError, match="is not installed"):
        command.find(str(make_script("#!/usr/bin/python3", mode=0o644)), "")


def image(name, packing=Compression.XZ, *, is_tarball=False):
    return Image(Path("/spool/42.file"), name, packing, 7, is_tarball)


@pytest.mark.parametrize(
    ("name", "packing", "is_tarball", "expected"),
    [
        ("appliance.x86_64-1.0.raw.xz", Compression.XZ, False, "appliance.x86_64-1.0.raw.xz"),
        ("appliance.raw", Compression.RAW, False, "appliance.raw"),
        ("a.vhdfixed.xz", Compression.XZ, False, "a.vhdfixed.raw.xz"),
        ("42.file", Compression.XZ, False, "42.file.raw.xz"),
        ("a.raw.xz", Compression.RAW, False, "a.raw"),
        ("a.raw", Compression.XZ, False, "a.raw.raw.xz"),
        ("x.target.raw.xz", Compression.XZ, False, "x_target.raw.xz"),
        ("a b;rm.raw.xz", Compression.XZ, False, "a_b_rm.raw.xz"),
        ("a.tar.xz", Compression.XZ, True, "a.tar.xz"),
        ("a.txz", Compression.XZ, True, "a.txz.tar.xz"),
        ("a.tgz", Compression.GZIP, True, "a.tar.gz"),
        ("a.tbz", Compression.BZIP2, True, "a.tar.bz2"),
        ("a.tar", Compression.TAR, True, "a.tar"),
    ],
)
def test_link_name_is_one_that_ec2uploadimg_understands(name, packing, is_tarball, expected):
    assert command.link_name(image(name, packing, is_tarball=is_tarball)) == expected


names = st.one_of(
    st.text(max_size=300),
    st.lists(st.sampled_from([".tar", ".raw", ".xz", ".tbz", ".tgz", ".", "a", "-", "+", " ", "é", "_"])).map("".join),
)


@hypothesis.given(names, st.sampled_from([(p, False) for p in PLAIN] + [(p, True) for p in TARBALLS]))
def test_link_name_is_always_safe(name, kind):
    packing, is_tarball = kind
    try:
        found = command.link_name(image(filenames.base_name(name), packing, is_tarball=is_tarball))
    except ImageError:
        assert re.search(r"\.(qcow2?|vmdk|vdi|vhdx?)(\.xz)?$", name, re.IGNORECASE)
        return
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+~-]*", found)
    assert found.endswith((TARBALLS if is_tarball else PLAIN)[packing])
    assert len(found) <= 255
    assert bool(re.search(r"\.(tar|tbz|tgz)", found)) is is_tarball


@pytest.mark.parametrize("packing", [Compression.GZIP, Compression.BZIP2, Compression.ZSTD])
def test_packing_that_ec2uploadimg_does_not_know_is_refused(packing):
    with pytest.raises(ImageError, match=f"a.raw is packed with {packing}, which ec2uploadimg can't unpack"):
        command.link_name(image("a.raw", packing))


@pytest.mark.parametrize("name", ["a.qcow2", "a.vmdk", "a.VHD", "a.vhdx.xz", "a.vdi"])
def test_format_that_is_not_raw_is_refused(name):
    with pytest.raises(ImageError, match="is not a raw disk image"):
        command.link_name(image(name, Compression.RAW))


def arguments(*, security_group=None, wanted=None, **targetdata):
    return command.arguments(
        targetdata={"region": "eu-west-1", "ami_name": "-my (image) 'x'"} | targetdata,
        attributes=wanted
        or image_spec.resolve_attributes(targetdata, architecture="arm64", boot_mode=targetdata.get("boot_mode")),
        keys=AccessKeys("ASIA", "-secret/+=", "--token=="),
        settings=settings.Ec2Settings(),
        configuration_path=Path("/work dir/.ec2utils.conf"),
        volume_gib=11,
        security_group=security_group,
        source=Path("/spool/42.dir/a.raw.xz"),
    )


def test_arguments_arrive_where_they_should(parse):
    found = parse(arguments())
    assert found.configFilePath == "/work dir/.ec2utils.conf"
    assert found.descript == "uploaded by clouduploader"
    assert (found.arch, found.imgName, found.regions) == ("arm64", "-my (image) 'x'", "eu-west-1")
    assert (found.accessKey, found.secretKey, found.sessionToken) == ("ASIA", "-secret/+=", "--token==")
    assert (int(found.rootVolSize), int(found.sshTimeout), int(found.waitCount)) == (11, 60, 3)
    assert str(found.source) == "/spool/42.dir/a.raw.xz"
    assert found.verbose
    assert found.ena is True
    assert found.sriov is False
    assert found.imdsVersion == "v2.0"
    for name in ("bootMode", "tpm", "vpcSubnetId", "securityGroupIds", "imageTags", "accountName"):
        assert not getattr(found, name), name


def test_optional_arguments_arrive_where_they_should(parse):
    tags = {"a b": "ö", "x": ""}
    given = arguments(
        security_group="sg-1",
        description="-d 'quoted' o",
        boot_mode="uefi",
        imds_support="v2.0",
        tpm_support="v2.0",
        vpc_subnet_id="subnet-1",
        tags=tags,
        ena_support=False,
        sriov_support=True,
    )
    found = parse(given)
    assert found.descript == "-d 'quoted' o"
    assert (found.bootMode, found.imdsVersion, found.tpm) == ("uefi", "v2.0", "v2.0")
    assert (found.vpcSubnetId, found.securityGroupIds) == ("subnet-1", "sg-1")
    assert json.loads(found.imageTags) == [{"Key": key, "Value": value} for key, value in tags.items()]
    assert (found.ena, found.sriov) == (False, True)


def test_imds_is_left_open_if_that_is_asked_for(parse):
    assert not parse(arguments(imds_support="optional")).imdsVersion


@pytest.mark.parametrize(
    ("machine", "given", "expected"), [("x86_64", {}, True), ("x86_64", {"sriov_support": False}, False)]
)
def test_sriov_is_on_for_x86_64_as_by_the_other_method(parse, machine, given, expected):
    wanted = image_spec.resolve_attributes(given, architecture=machine, boot_mode=None)
    assert parse(arguments(wanted=wanted)).sriov is expected


def test_no_tags_are_no_argument():
    assert not [word for word in arguments(tags={}) if word.startswith("--image-tags")]


def test_configuration_names_the_region_and_its_helper():
    text = command.configuration("eu-west-1", helper_config.HelperInstance("ami-1", "t2.micro", "root"))
    assert text == "[region-eu-west-1]\nami = ami-1\ninstance_type = t2.micro\nuser = root\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Created image:  ami-0123456789abcdef0", "ami-0123456789abcdef0"),
        ("Created image: None", None),
        (" Created image: ami-1", None),
        ("Created image: ami-1 x", None),
        ("Created snapshot: snap-1", None),
        ("Created image: ami-XYZ", None),
    ],
)
def test_image_id_is_taken_from_its_line_alone(line, expected):
    assert command.created_image(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Creating temporary key pair", "prepare"),
        ("Uploading image file: /a.raw.xz", "upload"),
        ("Registering image", "register"),
        ("  Registering image", None),
        ("", None),
    ],
)
def test_phase_begins_with_its_line(line, expected):
    assert command.phase(line) == expected


def failure(lines=(), *, exit_status=1, refusal=None):
    return command.failure(exit_status=exit_status, lines=lines, refusal=refusal, region="eu-west-1")


def refused(code, operation="CreateVpc"):
    return aws_errors.AwsError(service="ec2", operation=operation, code=code, message="Words.")


@pytest.mark.parametrize(
    ("code", "kind"), [("UnauthorizedOperation", DeniedError), ("RequestExpired", CredentialsError)]
)
def test_refusal_of_aws_is_the_cause_whatever_the_tool_says(code, kind):
    lines = ("An error occurred: unable to create a VPC Subnet", "Deleting temporary key pair x")
    error = failure(lines, refusal=refused(code))
    assert type(error) is kind
    assert code in error.message


def test_name_that_is_taken_is_told_as_such():
    error = failure(('Image with name "my-image" already exists',))
    assert "an image of that name already" in error.message


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), "ec2uploadimg failed: it said nothing"),
        (("Unable to find raw image file with .raw extension", "Deleting temporary key pair  x", "Successfully x"),
         "ec2uploadimg failed: Unable to find raw image file with .raw extension"),
        (("Traceback (most recent call last):", "  File x", "ec2imgutils.x.EC2UploadImgException: Time out.",
          "Deleting temporary key pair x", "Could not delete vpc"), "ec2uploadimg failed: Time out"),
        (("Deleting temporary key pair x", "Could not delete vpc"), "ec2uploadimg failed: Could not delete vpc"),
    ],
)  # fmt: skip
def test_cause_is_its_last_line_before_it_cleaned_up(lines, expected):
    error = failure(lines)
    assert type(error) is PlatformReplyError
    assert error.message == expected


def test_failing_command_on_the_helper_is_the_cause_of_what_follows():
    lines = ('"lsblk -a -J" command failed on helper instance', "Unable to find disk", "Deleting temporary key pair x")
    assert "lsblk" in failure(lines).message


@pytest.mark.parametrize(
    ("exit_status", "words"), [(-9, "was killed by signal 9"), (0, "ended without an image, and without a reason")]
)
def test_end_without_words_is_told_by_the_exit_status(exit_status, words):
    assert words in failure(exit_status=exit_status).message


def test_naming_an_image_loads_no_sdk():
    code = "import sys, clouduploader.platforms.ec2.ec2uploadimg.command; sys.exit('botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("operation", "answer", "expected"),
    [
        ("CreateKeyPair", {"KeyName": "k"}, ("key pair", "k")),
        ("CreateVpc", {"Vpc": {"VpcId": "vpc-1"}}, ("vpc", "vpc-1")),
        ("RunInstances", {"Instances": [{"InstanceId": "i-1"}]}, ("instance", "i-1")),
        ("CreateSecurityGroup", {"GroupId": "sg-1"}, ("security group", "sg-1")),
        ("RegisterImage", {"ImageId": "ami-1"}, ("image", "ami-1")),
        ("DescribeImages", {}, None),
        ("CreateTags", {}, None),
    ],
)
def test_what_a_call_made_is_known(operation, answer, expected):
    assert command.made_by(operation, answer, REGION) == (expected and CloudObject(*expected, REGION))


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("DeleteKeyPair", {"KeyName": "k"}, [("key pair", "k")]),
        ("TerminateInstances", {"InstanceIds": ["i-1", "i-2"]}, [("instance", "i-1"), ("instance", "i-2")]),
        ("DetachVolume", {"VolumeId": "vol-1"}, []),
        ("DeleteVolume", {}, []),
    ],
)
def test_what_a_call_removed_is_known(operation, parameters, expected):
    assert command.removed_by(operation, parameters, REGION) == [CloudObject(*pair, REGION) for pair in expected]


def test_every_kind_that_is_removed_is_one_that_is_made():
    kinds = {kind for kind, _name in (*command.MAKERS.values(), *command.REMOVERS.values())}
    assert kinds == set(cleanup.KINDS)
