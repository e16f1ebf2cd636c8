import dataclasses

import hypothesis
import pytest
from fakes.ec2_upload import GIB, make_facts, make_request
from hypothesis import strategies as st

from clouduploader.errors import ClouduploaderError, ImageError, TargetDataError
from clouduploader.platforms.ec2 import image_spec

X86, ARM = ("x86_64",), ("arm64",)


@pytest.fixture
def settle(tmp_path, record):
    """Decides for a request with these facts; None for a fact that is not told."""

    def make(*, arch="x86_64", measured=None, is_measured=False, targetdata=(), **facts):
        request = make_request(tmp_path, facts=make_facts(**facts), arch=arch, **dict(targetdata))
        request = dataclasses.replace(request, measure_image=lambda **_how: measured)
        return image_spec.resolve(request, record, is_measured=is_measured)

    return make


@pytest.mark.parametrize(
    ("given", "arch", "found", "expected"),
    [
        (None, "x86_64", X86, "x86_64"),
        (None, "aarch64", ARM, "arm64"),
        (None, "i586", (), "i386"),
        (None, None, ARM, "arm64"),
        (None, None, ("i386", "x86_64"), "x86_64"),
        (None, None, (), "x86_64"),
        ("arm64", "x86_64", ARM, "arm64"),
        ("i386", None, ("i386", "x86_64"), "i386"),
    ],
)
def test_architecture_is_the_targetdatas_or_the_jobs_or_the_images(settle, given, arch, found, expected):
    data = {"architecture": given} if given else {}
    assert settle(arch=arch, architectures=found, targetdata=data).attributes.architecture == expected


@pytest.mark.parametrize(
    ("arch", "data", "error", "words"),
    [
        ("aarch64", {}, ImageError, "the job is for aarch64, but the image's boot loader is for x86_64"),
        ("x86_64", {"architecture": "arm64"}, TargetDataError, "architecture: found arm64, but .* is for x86_64"),
        ("riscv64", {}, TargetDataError, "no machines of architecture riscv64"),
    ],
)
def test_architecture_that_the_image_has_not_is_refused(settle, arch, data, error, words):
    with pytest.raises(error, match=words):
        settle(arch=arch, targetdata=data)


def test_force_passes_over_a_disagreement_and_says_so(settle, record):
    assert settle(arch="aarch64", targetdata={"force": True}).attributes.architecture == "arm64"
    assert any("as force says: the job is for aarch64" in line for line in record.lines)


@pytest.mark.parametrize(
    ("arch", "uefi", "bios", "found", "expected"),
    [
        ("x86_64", True, True, X86, "uefi-preferred"),
        ("x86_64", True, False, X86, "uefi"),
        ("x86_64", False, True, (), "legacy-bios"),
        ("x86_64", False, False, (), None),
        ("i586", True, True, ("i386",), "legacy-bios"),
        ("aarch64", True, True, ARM, "uefi"),
        ("aarch64", False, False, (), "uefi"),
    ],
)
def test_boot_mode_is_what_the_image_can(settle, arch, uefi, bios, found, expected):
    assert settle(arch=arch, boots_uefi=uefi, boots_bios=bios, architectures=found).attributes.boot_mode == expected


@pytest.mark.parametrize(
    ("mode", "uefi", "bios", "missing"),
    [
        ("uefi", False, True, "EFI boot loader"),
        ("uefi-preferred", False, True, "EFI boot loader"),
        ("uefi-preferred", True, False, "BIOS boot code"),
        ("legacy-bios", True, False, "BIOS boot code"),
    ],
)
def test_boot_mode_that_the_image_cannot_is_refused(settle, mode, uefi, bios, missing):
    with pytest.raises(TargetDataError, match=f"boot_mode: found {mode}, but the image has no {missing}"):
        settle(boots_uefi=uefi, boots_bios=bios, targetdata={"boot_mode": mode})
    assert (
        settle(boots_uefi=uefi, boots_bios=bios, targetdata={"boot_mode": mode, "force": True}).attributes.boot_mode
        == mode
    )


def test_boot_mode_is_believed_where_the_image_tells_nothing(settle):
    found = settle(
        partition_table=None, architectures=(), boots_uefi=None, boots_bios=None, targetdata={"boot_mode": "uefi"}
    )
    assert found.attributes.boot_mode == "uefi"


@pytest.mark.parametrize("name", ["tpm_support", "uefi_data"])
def test_what_needs_uefi_is_refused_without(settle, name):
    with pytest.raises(TargetDataError, match=f"{name}: it needs UEFI, but the image boots by legacy-bios"):
        settle(boots_uefi=False, architectures=(), targetdata={name: "v2.0"})
    assert settle(boots_bios=False, targetdata={name: "v2.0"}).attributes.boot_mode == "uefi"


@pytest.mark.parametrize(
    ("size", "minimum", "given", "expected"),
    [
        (0, 0, None, 1),
        (GIB, 0, None, 1),
        (GIB + 1, 0, None, 2),
        (3 * GIB - 1, 3 * GIB, None, 3),
        (GIB, 0, 10, 10),
    ],
)
def test_volume_holds_image_and_partitions(settle, size, minimum, given, expected):
    data = {"force": True} | ({"root_volume_size": given} if given else {})
    assert settle(size_bytes=size, minimum_bytes=minimum, targetdata=data).volume_gib == expected


def test_disk_that_ends_before_its_partitions_is_refused(settle):
    with pytest.raises(ImageError, match="its file system, reach to byte 1000, but the disk has 999") as caught:
        settle(size_bytes=999, minimum_bytes=1000)
    assert "force" in caught.value.hint


@pytest.mark.parametrize(
    ("size", "data", "error", "words"),
    [
        (2 * GIB, {"root_volume_size": 1}, TargetDataError, "root_volume_size: found 1, but the image needs 2 GiB"),
        (65537 * GIB, {}, ImageError, "65537 GiB unpacked, more than a volume can hold"),
    ],
)
def test_volume_that_cannot_be_is_refused(settle, size, data, error, words):
    with pytest.raises(error, match=words) as caught:
        settle(size_bytes=size, targetdata=data)
    assert isinstance(caught.value, ClouduploaderError)


def test_size_that_nobody_knows_is_measured(settle):
    found = settle(size_bytes=None, is_size_exact=False, measured=5 * GIB)
    assert (found.size_bytes, found.is_size_exact, found.volume_gib) == (5 * GIB, True, 5)


def test_size_that_is_a_guess_is_measured_only_if_asked_for(settle):
    guess = {"size_bytes": GIB, "is_size_exact": False, "measured": 5 * GIB}
    assert (settle(**guess).volume_gib, settle(**guess).is_size_exact) == (1, False)
    assert settle(**guess, is_measured=True).volume_gib == 5


@pytest.mark.parametrize(
    ("facts", "mode", "is_said"),
    [
        ({"boots_uefi": None, "boots_bios": True, "architectures": ()}, None, True),
        ({"boots_uefi": None, "boots_bios": False, "architectures": ()}, None, True),
        ({"boots_uefi": True, "boots_bios": None}, "uefi", False),
        ({"boots_uefi": False, "boots_bios": None, "architectures": ()}, None, True),
    ],
)
def test_what_is_not_known_decides_no_boot_mode(settle, record, facts, mode, is_said):
    assert settle(**facts).attributes.boot_mode == mode
    assert any("does not tell how it boots" in line for line in record.lines) is is_said


@pytest.mark.parametrize("mode", ["uefi", "uefi-preferred", "legacy-bios"])
def test_what_is_not_known_refuses_no_boot_mode(settle, mode):
    found = settle(boots_uefi=None, boots_bios=None, architectures=(), targetdata={"boot_mode": mode})
    assert found.attributes.boot_mode == mode


def test_guess_of_an_architecture_is_said(settle, record):
    assert settle(arch=None, architectures=(), boots_uefi=None, boots_bios=False).attributes.architecture == "x86_64"
    assert any("does not tell which architecture" in line and "x86_64" in line for line in record.lines)


def test_bios_boot_is_no_guess(settle, record):
    assert settle(arch=None, architectures=(), boots_uefi=False, boots_bios=True).attributes.architecture == "x86_64"
    assert not any("does not tell" in line for line in record.lines)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (("riscv64",), "boot loader is for riscv64, and EC2 has no such machines"),
        (("arm", "loongarch64"), "boot loader is for arm and loongarch64, and EC2 has no such machines"),
        (("i386",), "boot loader is for i386, and EC2 starts such an image by BIOS only"),
    ],
)
def test_architecture_that_ec2_has_not_is_refused(settle, found, words):
    with pytest.raises(ImageError, match=words):
        settle(arch=None, architectures=found, boots_uefi=True, boots_bios=False)


@pytest.mark.parametrize(("arch", "given"), [("x86_64", {}), ("aarch64", {}), (None, {"architecture": "arm64"})])
def test_architecture_that_is_named_must_be_the_images(settle, arch, given):
    with pytest.raises(ClouduploaderError, match="boot loader is for riscv64"):
        settle(arch=arch, architectures=("riscv64",), targetdata=given)


@pytest.mark.parametrize(
    ("facts", "how"), [({"size_bytes": None, "is_size_exact": False}, {"measured": GIB}), ({"size_bytes": GIB}, {})]
)
def test_missing_copy_of_a_gpt_is_no_reason_to_refuse(settle, record, facts, how):
    found = settle(**facts, **how, minimum_bytes=GIB, copy_bytes=4 * GIB)
    assert (found.size_bytes, found.volume_gib) == (GIB, 1)
    assert any("the copy of its GPT" in line for line in record.lines) is bool(how)  # else the runner says it


def resolve(architecture="x86_64", boot_mode=None, **targetdata):
    return image_spec.resolve_attributes(targetdata, architecture=architecture, boot_mode=boot_mode)


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
def test_attributes_that_need_uefi_are_refused_without(name):
    with pytest.raises(TargetDataError, match=f"{name}: it needs UEFI, but the image boots by legacy-bios"):
        resolve(boot_mode="legacy-bios", **{name: "AAAA"})


def test_uefi_data_are_for_uefi_where_nobody_knows_how_the_image_boots():
    assert resolve(boot_mode=None, uefi_data="AAAA").boot_mode == "uefi"


def test_uefi_data_do_not_change_how_an_image_boots():
    assert resolve(boot_mode="uefi-preferred", uefi_data="AAAA").boot_mode == "uefi-preferred"


def test_parameters_are_those_of_the_api(sdk_session):
    shape = sdk_session.get_service_model("ec2").operation_model("RegisterImage").input_shape
    everything = resolve(boot_mode="uefi", tpm_support="2.0", uefi_data="AAAA").parameters()
    assert len(everything) == len(dataclasses.fields(image_spec.ImageAttributes))
    assert everything.keys() <= shape.members.keys()


@pytest.mark.parametrize(
    ("unpacked_bytes", "expected"),
    [
        (1, 10),
        (10 << 30, 10),
        ((10 << 30) + 1, 11),
        (511 << 30, 511),
        (512 << 30, 512),
        ((512 << 30) + 1, 1024),  # 513 is 1.1T twice over, which lsblk does not show as a whole number
        (1000 << 30, 1024),
        ((1024 << 30) + 1, 2048),
        (16384 << 30, 16384),
    ],
)
def test_volume_is_large_enough_and_can_be_found(unpacked_bytes, expected):
    assert image_spec.helper_volume_gib(unpacked_bytes, None) == expected


@hypothesis.given(st.integers(1, 16384 << 30))
def test_volume_holds_any_image(unpacked_bytes):
    size = image_spec.helper_volume_gib(unpacked_bytes, None)
    assert size << 30 >= unpacked_bytes
    assert image_spec.helper_volume_gib(unpacked_bytes, size) == size


def test_image_that_no_volume_can_hold_is_refused():
    with pytest.raises(ImageError, match="is 16385 GiB unpacked"):
        image_spec.helper_volume_gib((16384 << 30) + 1, None)


def test_wanted_volume_size_is_taken():
    assert image_spec.helper_volume_gib(1, 5) == 5


@pytest.mark.parametrize(
    ("wanted", "words"), [(4, "found 4, but the image is 5 GiB"), (513, "found 513, but ec2upload"), (1500, "1500")]
)
def test_wanted_volume_size_that_does_not_do_is_refused(wanted, words):
    with pytest.raises(TargetDataError, match=words):
        image_spec.helper_volume_gib(5 << 30, wanted)
