"""OBS's call, which becomes an AMI."""

import hashlib
import re

import pytest
from samples import image_disks as disks
from samples import made_images
from samples.job_logs import TIME

import clouduploader

pytestmark = pytest.mark.sandbox

AMAZONS = ("images", "snapshots")  # what is meant to be in the account afterwards


def assert_uploaded(sandbox, job, done, image):
    """Check that the AMI boots from these very bytes, and that nothing else is left anywhere."""
    assert sandbox.image_bytes(done.image_id, len(image.raw)) == image.raw, done.log
    assert job.litter() == []
    described = next(entry for entry in sandbox.account()["images"] if entry["id"] == done.image_id)
    (mapping,) = described["block_device_mappings"]
    assert mapping["Ebs"]["SnapshotId"] in sandbox.left()["snapshots"]
    return described


def test_upload_with_six_operands_becomes_an_ami(sandbox, make_job, make_image):
    image = make_image("openSUSE-Leap.x86_64-1.0.0-Build1.1.raw.xz")
    job = make_job(image, ami_name="Leap 15.6 (test)")
    done = job.run()

    described = assert_uploaded(sandbox, job, done, image)
    assert sandbox.left() == {kind: sandbox.left()[kind] for kind in AMAZONS}
    assert [len(ids) for ids in sandbox.left().values()] == [1, 1]
    assert described["name"] == "Leap 15.6 (test)"
    assert described["description"] == "uploaded by clouduploader"
    assert described["architecture"] == "x86_64"
    assert described["virtualization_type"] == "hvm"
    assert described["root_device_name"] == "/dev/sda1"
    assert described["ena_support"] is True
    assert (described["imds_support"], described["sriov_net_support"]) == ("v2.0", "simple")  # as ebs-direct has it
    unset = ("boot_mode", "tpm_support")
    assert {name: described[name] for name in unset} == dict.fromkeys(unset)
    assert {name: text for name, text in described["tags"].items() if name not in ("clouduploader:started",)} == {
        "clouduploader:key": next(line for line in done.lines if line.startswith("Journal: ")).removeprefix(
            "Journal: "
        ),
        "clouduploader:job": job.name,
        "clouduploader:arch": "x86_64",
        "clouduploader:filename": image.path.name,
        "clouduploader:version": clouduploader.__version__,
        "clouduploader:sha256": hashlib.sha256(image.path.read_bytes()).hexdigest(),
    }
    (snapshot,) = sandbox.account()["snapshots"]
    assert snapshot["tags"] == described["tags"]
    assert described["block_device_mappings"][0]["Ebs"]["VolumeSize"] == 10
    first, *_, last = done.lines
    assert re.fullmatch(r"clouduploader \S+ on \d{4}-\d\d-\d\d, times in UTC: user tom, target ec2", first)
    assert all(TIME.match(line) for line in done.log.splitlines())
    assert re.fullmatch(r"Upload took: \d\d:\d\d:\d\d", last)
    assert {
        "Start uploading image openSUSE-Leap.x86_64-1.0.0-Build1.1.raw.xz.",
        "Successfully authenticated.",
        f"Created image: {done.image_id}",
    } <= set(done.lines)
    assert done.phases == [
        "authenticate",
        "check image",
        "prepare",
        "start helper",
        "upload",
        "unpack",
        "write volume",
        "snapshot",
        "register",
    ]
    assert all(call["has_token"] for call in sandbox.calls() if call["service"] == "ec2")


def test_upload_with_five_operands_appends_to_the_log_and_prints_the_result(sandbox, make_job, make_image):
    image = make_image()
    job = make_job(image, filename="not-used-here", region="eu-central-1")
    job.log_path.write_text("OBS was here.\n")
    inode = job.log_path.stat().st_ino
    done = job.run(has_result_file=False)

    assert (done.status, done.stderr, done.result) == (0, "", None)
    assert job.log_path.stat().st_ino == inode
    assert done.lines[0] == "OBS was here."
    # The name is that of the job's own file.
    assert "Start uploading image named-by-the-job.raw.xz." in done.lines
    assert f"Created image: {done.stdout.strip()}" in done.lines
    (described,) = sandbox.account()["images"]
    assert (described["id"], described["region"]) == (done.stdout.strip(), "eu-central-1")
    assert sandbox.image_bytes(described["id"], len(image.raw)) == image.raw
    assert job.litter() == []


def test_all_that_target_data_can_say_is_registered(sandbox, make_job, tmp_path):
    loader = disks.fat({"EFI/BOOT/BOOTAA64.EFI": disks.pe(disks.ARM64)}, bits=12)
    raw = (disks.mbr([(0xEF, 2048, 2048)]).ljust(1 << 20, b"\0") + loader).ljust(2 << 20, b"\0")
    image = made_images.MadeImage(tmp_path / "x.raw.xz", raw)
    made_images.write(image.path, raw, "xz")
    tags = {"Distribution": "openSUSE", "ünïcode; key": "a 'quoted' \"value\""}
    job = make_job(
        image,
        arch="aarch64",
        description="An image; with 'quotes' & $(more)",
        tags=tags,
        boot_mode="uefi",
        imds_support="2.0",
        tpm_support="v2.0",
        sriov_support=True,
        root_volume_size=12,
    )
    described = assert_uploaded(sandbox, job, job.run("--verbose"), image)
    assert described["architecture"] == "arm64"
    assert described["description"] == "An image; with 'quotes' & $(more)"
    assert {name: text for name, text in described["tags"].items() if "clouduploader:" not in name} == tags
    assert described["boot_mode"] == "uefi"
    assert described["imds_support"] == "v2.0"
    assert described["tpm_support"] == "v2.0"
    assert described["sriov_net_support"] == "simple"
    assert described["ena_support"] is True
    assert described["block_device_mappings"][0]["Ebs"]["VolumeSize"] == 12


# How the image is packed, and what it is called: the two need not agree. By whom, and how the log names it.
CASES = [
    ("raw", "my image; rm -rf $HOME.raw", "list", "my image; rm -rf $HOME.raw"),
    ("xz", "-v.target.x86_64.vhdfixed.xz", "-king", "v.target.x86_64.vhdfixed.xz"),
    ("tar.gz", "../../ünïcödé.tar.gz", 'o\'brien & "sons"', "ünïcödé.tar.gz"),
    ("tar.xz", "i" * 300 + ".txz", b"t\xf6m \xff", "i" * 196 + ".txz"),
    ("tar.bz2", b"\xff\xfe\x1b[31m.raw.xz", "ünï cödé", "___[31m.raw.xz"),
]


def test_all_formats_arrive_byte_for_byte_whatever_they_are_called(sandbox, make_job, make_image):
    """All at once: an account has room for the VPCs of three of them in one region."""
    regions = sandbox.description["regions"]
    jobs, images = [], []
    for number, (packing, filename, user, _shown) in enumerate(CASES):
        images.append(make_image(f"image-{number}", packing=packing, seed=number, size_bytes=2 << 20))
        how = {"ami_name": f"image-{number}", "region": regions[number % len(regions)]}
        jobs.append(make_job(images[-1], filename=filename, user=user, **how))
    outside = set(sandbox.spool.parent.iterdir())
    running = [job.start() for job in jobs]
    ended = [job.finish(process) for job, process in zip(jobs, running, strict=True)]  # no other writes its result then
    for job, done, image, (*_, shown) in zip(jobs, ended, images, CASES, strict=True):
        assert_uploaded(sandbox, job, done, image)
        assert f"Start uploading image {shown}." in done.lines
    assert {kind: len(found) for kind, found in sandbox.left().items()} == dict.fromkeys(AMAZONS, len(CASES))
    assert set(sandbox.spool.parent.iterdir()) == outside
    sessions = {call["arguments"]["RoleSessionName"] for call in sandbox.calls("AssumeRole")}
    assert all(re.fullmatch(r"[\w=,.@-]{2,64}", name, re.ASCII) for name in sessions)
    assert {f"obs-{job.name}" for job in jobs} == {name[:5] for name in sessions}


def test_upload_into_a_subnet_has_a_group_of_its_own(sandbox, make_job, make_image):
    described = sandbox.description
    image = make_image()
    job = make_job(image, vpc_subnet_id=described["subnet_id"])
    done = job.run("-v")
    assert_uploaded(sandbox, job, done, image)
    assert sandbox.left().keys() == set(AMAZONS)
    (created,) = sandbox.calls("CreateSecurityGroup")
    assert created["arguments"]["VpcId"] == described["vpc_id"]
    (launched,) = sandbox.calls("RunInstances")
    assert launched["arguments"]["NetworkInterface.1.SubnetId"] == described["subnet_id"]
    assert sandbox.calls("CreateVpc") == []
    assert any(re.fullmatch(r"Removed security group sg-\w+ in us-east-1\.", line) for line in done.lines)


def test_link_lies_in_the_jobs_own_directory_while_it_is_needed(sandbox, make_job, make_image):
    image = make_image("x.raw.xz", size_bytes=1 << 20)
    sandbox.helper(command_delays={"xz": 1})
    job = make_job(image, filename="the real name.raw.xz")
    process = job.start()
    job.wait_for("Inflating image", process)
    (link,) = job.work_dir.iterdir()
    assert link.name == "the_real_name.raw.xz"
    assert link.resolve() == image.path
    (private,) = job.temporary.iterdir()
    assert private.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in private.iterdir()} == {0o600}
    assert_uploaded(sandbox, job, job.finish(process), image)
