import dataclasses

import botocore.session
import pytest

from clouduploader.errors import TargetDataError
from clouduploader.platforms.ec2 import attributes


def resolve(architecture="x86_64", boot_mode=None, **targetdata):
    return attributes.resolve(targetdata, architecture=architecture, boot_mode=boot_mode)


def test_defaults_are_what_current_instances_need():
    assert resolve().parameters() == {
        "Description": "uploaded by clouduploader",
        "Architecture": "x86_64",
        "EnaSupport": True,
        "SriovNetSupport": "simple",
        "ImdsSupport": "v2.0",
    }


@pytest.mark.parametrize(
    ("machine", "given", "expected"),
    [
        ("x86_64", None, "simple"),
        ("arm64", None, None),
        ("i386", None, None),
        ("x86_64", False, None),
        ("arm64", True, "simple"),
    ],
)
def test_sriov_is_for_x86_64_unless_something_is_said(machine, given, expected):
    asked = {} if given is None else {"sriov_support": given}
    assert resolve(machine, **asked).sriov_net_support == expected


@pytest.mark.parametrize(("given", "expected"), [(None, "v2.0"), ("2.0", "v2.0"), ("v2.0", "v2.0"), ("optional", None)])
def test_imds_is_demanded_unless_it_is_left_open(given, expected):
    assert resolve(imds_support=given).imds_support == expected


@pytest.mark.parametrize("boot_mode", ["uefi", "uefi-preferred", None])
def test_image_with_a_tpm_boots_by_uefi_alone(boot_mode):
    found = resolve(boot_mode=boot_mode, tpm_support="2.0")
    assert (found.boot_mode, found.tpm_support) == ("uefi", "v2.0")


@pytest.mark.parametrize("name", ["tpm_support", "uefi_data"])
def test_what_needs_uefi_is_refused_without(name):
    with pytest.raises(TargetDataError, match=f"{name}: it needs UEFI, but the image boots by legacy-bios"):
        resolve(boot_mode="legacy-bios", **{name: "AAAA"})


def test_uefi_data_are_for_uefi_where_nobody_knows_how_the_image_boots():
    assert resolve(boot_mode=None, uefi_data="AAAA").boot_mode == "uefi"


def test_uefi_data_do_not_change_how_an_image_boots():
    assert resolve(boot_mode="uefi-preferred", uefi_data="AAAA").boot_mode == "uefi-preferred"


def test_parameters_are_those_of_the_api():
    shape = botocore.session.Session().get_service_model("ec2").operation_model("RegisterImage").input_shape
    everything = resolve(boot_mode="uefi", tpm_support="2.0", uefi_data="AAAA").parameters()
    assert len(everything) == len(dataclasses.fields(attributes.ImageAttributes))
    assert everything.keys() <= shape.members.keys()
