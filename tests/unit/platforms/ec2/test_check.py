import os
import sys
from pathlib import Path

import botocore
import botocore.session
import pytest
from fakes.aws_sdk import Refusal
from fakes.ec2_cloud import Ec2Cloud, FakeAccount

from clouduploader.errors import ConfigError
from clouduploader.platforms.ec2 import Ec2, check, settings
from clouduploader.platforms.ec2.ec2uploadimg import command
from clouduploader.plugin import Context, Level, NullReporter, PlatformContext
from clouduploader.util.cancel import Cancel

REGION = "eu-west-1"
VERSION = f"#!{sys.executable}\nprint('{{}}')\n"
MEASURED = VERSION.format("10.0.5")


@pytest.fixture
def make_context(tmp_path, ec2):
    """A factory of a home with credentials, a helper, and a tool that tells this version."""

    def make(*, ami=None, instance_type="t2.micro", tool=MEASURED, keys=True, conf=None):
        (tmp_path / ".aws").mkdir()
        if keys:
            text = "[default]\naws_access_key_id = AKIAHOME\naws_secret_access_key = SECRET\n"
            (tmp_path / ".aws" / "credentials").write_text(text)
        ami = ami or ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        section = f"[region-{REGION}]\nami = {ami}\ninstance_type = {instance_type}\nuser = root\n"
        (tmp_path / ".ec2utils.conf").write_text(section if conf is None else conf)
        script = tmp_path / "ec2uploadimg"
        script.write_text(tool)
        script.chmod(0o755)
        return PlatformContext(home=tmp_path, settings={}, environment={"PATH": f"{tmp_path}:/usr/bin"})

    return make


def find(context, *, targetdata=None, region=None, method="ec2uploadimg"):
    """The findings by their subject; the last one of each."""
    found = find_all(context, settings.Ec2Settings(method=method), targetdata=targetdata, region=region)
    for finding in found:
        assert "SECRET" not in str(finding)
    return {Path(finding.subject).name: finding for finding in found}


def test_all_in_place_is_all_ok(make_context):
    found = find(make_context())
    assert {subject: finding.level for subject, finding in found.items()} == dict.fromkeys(
        ("ec2uploadimg", "AWS identity", "clock", f"region {REGION}"), Level.OK
    )
    assert found["ec2uploadimg"].message == f"version 10.0.5, run by {sys.executable}"
    assert "account 123456789012" in found["AWS identity"].message


@pytest.fixture
def bare_context(tmp_path, monkeypatch):
    """What a plain user has: an empty home, credentials of his own, and a region."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOWN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    monkeypatch.setenv("AWS_ENDPOINT_URL_EBS", "http://127.0.0.1:9")  # refuses at once; a name is looked up for long
    return PlatformContext(home=tmp_path, settings={}, environment={"PATH": "/nowhere", "AWS_REGION": REGION})


@pytest.mark.usefixtures("ec2")
def test_ebs_direct_asks_for_nothing_that_ec2uploadimg_needs(bare_context):
    found = find(bare_context, method="ebs-direct")
    assert set(found) == {"AWS identity", "clock", f"EBS direct APIs in {REGION}"}
    assert found["AWS identity"].level is Level.OK


@pytest.mark.usefixtures("ec2")
def test_what_auto_may_do_without_is_a_warning(bare_context):
    found = find(bare_context, method="auto")
    assert {subject: found[subject].level for subject in ("ec2uploadimg", ".ec2utils.conf")} == {
        "ec2uploadimg": Level.WARNING,
        ".ec2utils.conf": Level.WARNING,
    }
    assert f"EBS direct APIs in {REGION}" in found


ODD = f"#!{sys.executable}\nimport sys\nsys.{{}}.buffer.write(b'{{}}')\n"


@pytest.mark.parametrize(
    ("tool", "level", "words"),
    [
        (VERSION.format("9.0.3"), Level.WARNING, "version 9.0.3"),
        (ODD.format("stdout", r"9.0.\377"), Level.WARNING, "version 9.0.\ufffd"),
        (ODD.format("stdout", "9" * 5000), Level.OK, "version 999"),
        (ODD.format("stderr", r"\377\376") + "raise SystemExit(3)\n", Level.FAILURE, "does not run: \ufffd"),
        ("#!/bin/sh\n", Level.FAILURE, "not a Python script"),
        (f"#!{sys.executable}\nimport nothing_like_it\n", Level.FAILURE, "does not run: ModuleNotFoundError"),
        (f"#!{sys.executable}\nraise SystemExit(3)\n", Level.FAILURE, "does not run: no reason given"),
    ],
)
def test_tool_that_does_not_do_is_found(make_context, tool, level, words):
    finding = find(make_context(tool=tool))["ec2uploadimg"]
    assert finding.level is level
    assert words in finding.message


def test_helper_that_is_not_there_is_found(make_context):
    finding = find(make_context(ami="ami-00000000"))[f"region {REGION}"]
    assert finding.level is Level.FAILURE
    assert "ami-00000000" in finding.message


@pytest.mark.parametrize(("kind", "words"), [("t3.micro", "can't find its disks"), ("t2.gigantic", "no instance type")])
def test_instance_type_that_does_not_do_is_found(make_context, kind, words):
    finding = find(make_context(instance_type=kind))[f"region {REGION}"]
    assert finding.level is Level.FAILURE
    assert words in finding.message


@pytest.mark.parametrize(("conf", "words"), [("", "no region is configured"), ("x", "is not an INI file")])
def test_configuration_without_regions_is_found(make_context, conf, words):
    finding = find(make_context(conf=conf))[".ec2utils.conf"]
    assert finding.level is Level.FAILURE
    assert words in finding.message


def test_only_the_region_asked_for_is_looked_at(make_context):
    found = find(make_context(), region="us-east-1")
    assert found["region us-east-1"].level is Level.FAILURE
    assert f"region {REGION}" not in found


def test_lack_of_credentials_is_found(make_context, monkeypatch):
    context = make_context(keys=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    finding = find(context)["AWS identity"]
    assert finding.level is Level.FAILURE
    assert "the AWS credentials can't be had" in finding.message
    assert ".aws/credentials" in finding.hint


@pytest.mark.parametrize(("date", "level"), [("", Level.WARNING), ("Sun, 22 Nov 2020 17:00:00 GMT", Level.FAILURE)])
def test_clock_is_judged_by_the_date_of_an_answer(date, level):
    assert check._clock(date).level is level


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, Level.OK, "helper, name and subnet are fine"),
        ({"vpc_subnet_id": "subnet-00000000"}, Level.FAILURE, "there is no subnet-00000000"),
    ],
)
def test_region_of_a_job_to_come_is_looked_at_with_its_rights(make_context, changes, level, words):
    context = make_context()
    data = {"region": REGION, "ami_name": "my image"} | changes
    finding = find(context, targetdata=data)["own credentials"]
    assert finding.level is level
    assert words in finding.message


DIRECT = settings.Ec2Settings(method="ebs-direct")


def find_all(context, values=DIRECT, *, targetdata=None, region=None):
    """All findings, in order."""
    ctx = Context(Ec2(context), targetdata or {}, NullReporter(), Cancel(), region=region)
    return list(check.run(ctx, values, context))


def test_ebs_direct_needs_neither_tool_nor_helpers(make_context, make_endpoint, monkeypatch):
    endpoint = make_endpoint((403, "{}", {"x-amzn-ErrorType": "AccessDeniedException"}))
    monkeypatch.setenv("AWS_ENDPOINT_URL_EBS", endpoint.url)
    found = find_all(make_context(tool="#!/bin/sh\n", conf="x"), region=REGION)
    assert [(finding.subject, finding.level) for finding in found] == [
        ("AWS identity", Level.OK),
        ("clock", Level.OK),
        (f"EBS direct APIs in {REGION}", Level.OK),
    ]
    assert found[-1].message == f"{endpoint.url} answers"


def test_ebs_direct_without_a_region_says_how_to_name_one(make_context):
    (finding,) = find_all(make_context(conf="x"))
    assert finding.level is Level.WARNING
    assert "--region" in finding.hint


def test_ebs_endpoint_that_does_not_answer_is_found(make_context, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_EBS", "http://127.0.0.1:9")  # discard, which nobody serves any more
    finding = find_all(make_context(), region=REGION)[-1]
    assert finding.level is Level.FAILURE
    assert "can't be reached" in finding.message


def test_rights_are_tried_as_far_as_they_can_be(make_context, make_endpoint, monkeypatch):
    endpoint = make_endpoint((403, "{}", {"x-amzn-ErrorType": "AccessDeniedException"}))
    monkeypatch.setenv("AWS_ENDPOINT_URL_EBS", endpoint.url)
    data = {"region": REGION, "ami_name": "my image"}
    *_, fine, granted, unknown = find_all(make_context(conf="x"), targetdata=data)
    assert fine.message == f"name is fine in {REGION}"
    assert granted.level is Level.OK
    assert "ec2:RegisterImage" in granted.message
    assert unknown.level is Level.WARNING
    for action in check.UNTRIABLE:
        assert action in unknown.message


@pytest.mark.parametrize(
    ("code", "levels"),
    [
        ("DryRunOperation", [Level.OK, Level.WARNING]),
        ("UnauthorizedOperation", [Level.FAILURE] * (len(check.DRY_RUNS) - len(check.TIED)) + [Level.WARNING]),
        ("InvalidSnapshot.NotFound", [Level.WARNING]),
    ],
)
def test_answer_to_a_dry_run_is_understood(tmp_path, record, code, levels):
    platform = Ec2(PlatformContext(home=tmp_path, settings={}, environment={}))
    cloud = Ec2Cloud()
    cloud.faults = {action: [Refusal(code)] for action in check.DRY_RUNS}
    found = list(check._rights(Context(platform, {}, record, Cancel()), FakeAccount(cloud), "role x"))
    assert all(given["DryRun"] is True for _region, _operation, given in cloud.calls)
    assert [finding.level for finding in found] == levels
    if code != "DryRunOperation":
        shown = " ".join(finding.message for finding in found)
        assert all(f"ec2:{action}" in shown for action in check.DRY_RUNS)


def test_dry_runs_are_calls_of_the_api(sdk_session):
    model = sdk_session.get_service_model("ec2")
    for action, (operation, parameters) in check.DRY_RUNS.items():
        assert botocore.xform_name(action) == operation
        assert {*parameters, "DryRun"} <= set(model.operation_model(action).input_shape.members)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_tool_that_another_user_may_have_named_is_not_run_by_root(tmp_path, make_context):
    mine = settings.Ec2Settings(ec2uploadimg=str(tmp_path / "ec2uploadimg"))
    context = make_context()
    assert command.named(mine, context).script == tmp_path / "ec2uploadimg"
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(ConfigError, match=r"root does not run .*/ec2uploadimg: .*clouduploader.conf may"):
        command.named(mine, context)
    assert (
        command.named(settings.Ec2Settings(), context).script == tmp_path / "ec2uploadimg"
    )  # on the PATH that root has
