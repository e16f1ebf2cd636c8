"""What is done once the image is there: copies in other regions, sharing, deprecation; by both methods."""

import datetime
import json
import signal
import subprocess
import time

import pytest
from samples.job_logs import untimed

pytestmark = pytest.mark.sandbox

HOME, SECOND, THIRD = "us-east-1", "us-west-2", "eu-central-1"
METHODS = ["ec2uploadimg", "ebs-direct"]
FRIEND = "210987654321"
NEXT_YEAR = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=365)
COPY_KINDS = ("image", "snapshot")
PATIENCE_SECONDS = 60
POLL_SECONDS = 0.05


@pytest.fixture
def small_image(make_image):
    """An image that is fast to upload."""
    return make_image("x.raw.xz", size_bytes=1 << 20)


@pytest.fixture
def command(sandbox, small_image):
    """A factory of the command line of an upload by hand; words are its further options."""
    described = sandbox.description

    def make(*words, method="ebs-direct", image=None):
        return [
            "clouduploader", "upload", image or small_image.path, f"--region={HOME}", "--name=everywhere",
            f"--method={method}", f"--arn={described['role_arn']}", f"--external-id={described['external_id']}", *words,
        ]  # fmt: skip

    return make


@pytest.fixture
def images(sandbox):
    """A factory of the images that there are, by region."""
    return lambda: {image["region"]: image for image in sandbox.account()["images"]}


def left(sandbox):
    """The kinds of things in the account, by region."""
    return {(kind, entry["region"]) for kind, entries in sandbox.account().items() for entry in entries}


def read_json(done):
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_image_is_copied_shared_and_deprecated_in_all_regions(sandbox, command, images, small_image):
    words = [f"--copy-to={SECOND},{HOME}", f"--copy-to={THIRD}", f"--share={FRIEND},public"]
    done = sandbox.run(command(*words, f"--deprecate-at={NEXT_YEAR}", "--tag=a=b", "--json"))
    answer = read_json(done)
    assert (done.returncode, answer["exit_code"], answer["data"]["shortfalls"]) == (0, 0, []), done.stderr
    found = images()
    assert set(found) == {HOME, SECOND, THIRD}
    assert answer["data"]["result"] == found[HOME]["id"]
    objects = [(thing["kind"], thing["region"]) for thing in answer["data"]["objects"]]
    assert objects == [(kind, region) for region in (HOME, SECOND, THIRD) for kind in COPY_KINDS]
    assert left(sandbox) == {(f"{kind}s", region) for region in found for kind in COPY_KINDS}
    for image in found.values():
        assert (image["name"], image["description"]) == ("everywhere", found[HOME]["description"])
        assert image["launch_permissions"] == [{"UserId": FRIEND}, {"Group": "all"}]
        assert image["deprecation_time"] == f"{NEXT_YEAR}T00:00:00.000Z"
        assert image["tags"]["a"] == "b"
        assert image["tags"]["clouduploader:key"] == found[HOME]["tags"]["clouduploader:key"]
        assert sandbox.image_bytes(image["id"], len(small_image.raw)) == small_image.raw
    for snapshot in sandbox.account()["snapshots"]:
        assert snapshot["tags"]["clouduploader:key"] == found[HOME]["tags"]["clouduploader:key"]


@pytest.mark.parametrize("method", METHODS)
def test_failing_region_does_not_lose_the_others_and_the_same_command_finishes_the_rest(
    sandbox, command, images, method
):
    line = command(f"--copy-to={SECOND},{THIRD}", f"--share={FRIEND}", "--json", method=method)
    sandbox.fault("CopyImage", nth=1, code="SnapshotLimitExceeded", message="Too many snapshots.")
    first = sandbox.run(line)
    answer = read_json(first)
    assert (first.returncode, answer["exit_code"], answer["error"]) == (75, 75, None), first.stderr
    failed = {item["subject"]: item["reason"] for item in answer["data"]["shortfalls"]}
    (refused,) = failed
    assert "Too many snapshots" in failed[refused]
    assert failed[refused].startswith("not copied: ")
    assert f"clouduploader: warning: {refused}: {failed[refused]}" in first.stderr.splitlines()
    assert set(images()) == {HOME, SECOND, THIRD} - {refused}
    log = untimed((sandbox.spool / "done" / "2.log").read_text())
    assert f"Failed: {refused}: {failed[refused]}" in log
    assert (sandbox.spool / "done" / "2").read_text().count("<state>succeeded") == 1

    calls = len(sandbox.calls())
    second = sandbox.run(line)
    assert second.returncode == 0, second.stderr
    assert f"{answer['data']['result']} is already there" in second.stderr
    there = read_json(second)["data"]
    assert (there["result"], there["already_there"]) == (answer["data"]["result"], True)
    assert there["images"] == {region: image["id"] for region, image in images().items()}
    assert set(images()) == {HOME, SECOND, THIRD}
    actions = [call["action"] for call in sandbox.calls()[calls:]]
    assert actions.count("CopyImage") == 1
    assert not {"RunInstances", "StartSnapshot", "RegisterImage"} & set(actions)
    assert all(image["launch_permissions"] == [{"UserId": FRIEND}] for image in images().values())


def test_upload_for_obs_that_failed_in_part_has_its_result_and_ends_well(sandbox, make_job, small_image, images):
    sandbox.fault("CopyImage", code="SnapshotLimitExceeded", message="Too many snapshots.")
    job = make_job(small_image, regions=[SECOND], method="ebs-direct")
    done = job.run()
    assert done.image_id == images()[sandbox.description["region"]]["id"]
    assert any(line.startswith(f"Failed: {SECOND}: not copied: ") for line in done.lines)
    assert "Error" not in done.log


def test_copies_have_the_keys_of_their_regions(sandbox, command, images, tmp_path):
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"kms_keys": {SECOND: "alias/images"}}))
    done = sandbox.run(command(f"--copy-to={SECOND},{THIRD}", f"--data={data}"))
    assert done.returncode == 0, done.stderr
    keys = {entry["region"]: entry["kms_key_id"] for entry in sandbox.account()["snapshots"] if entry["encrypted"]}
    assert keys == {SECOND: sandbox.description["kms_keys"][SECOND]}


def test_key_that_does_not_exist_is_refused_before_anything_is_made(sandbox, command, tmp_path):
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"kms_keys": {SECOND: "alias/nobodys"}}))
    done = sandbox.run(command(f"--copy-to={SECOND},{THIRD}", f"--data={data}"))
    assert done.returncode == 65
    assert f"there is no KMS key alias/nobodys in {SECOND}" in done.stderr
    assert left(sandbox) == set()


def test_what_can_not_be_is_refused_before_anything_is_made(sandbox, command):
    yesterday = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)
    done = sandbox.run(command("--encrypt", "--share=public", f"--deprecate-at={yesterday}"))
    assert done.returncode == 65
    assert "an encrypted image can't be public" in done.stderr
    assert "--deprecate-at is in the past" in done.stderr
    assert sandbox.calls() == []


def test_right_that_is_missing_is_named(sandbox, command, images):
    rights = ["ebs:*", "ec2:Describe*", "ec2:CreateTags", "ec2:RegisterImage", "ec2:CopyImage"]
    sandbox.policy({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": rights, "Resource": "*"}]})
    done = sandbox.run(command(f"--copy-to={SECOND}", f"--share={FRIEND}", f"--deprecate-at={NEXT_YEAR}"))
    assert done.returncode == 75
    assert done.stdout.strip() == images()[HOME]["id"]
    for region in (HOME, SECOND):
        for verb, action in (("shared", "ModifyImageAttribute"), ("deprecated", "EnableImageDeprecation")):
            assert f"warning: {region}: not {verb}: the role may not call ec2:{action}" in done.stderr


def test_lost_answer_makes_no_second_copy(sandbox, command, images):
    sandbox.fault("CopyImage", nth=1, lose_answer=True)
    done = sandbox.run(command(f"--copy-to={SECOND}"))
    assert done.returncode == 0, done.stderr
    assert [image["region"] for image in sandbox.account()["images"]] == sorted(
        [HOME, SECOND], key=list(images()).index
    )


def wait_for(sandbox, process, action):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(call["status"] == 200 for call in sandbox.calls(action)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)


def wait_for_images(sandbox, regions):
    """Wait until the journal of job 2 has an image in each region: one whose answer was lost would not show yet."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer = json.loads(sandbox.run(["clouduploader", "inspect", "2", "--json"]).stdout)["data"]
        if regions <= {thing["region"] for thing in answer["objects"] if thing["kind"] == "image"}:
            return
        assert time.monotonic() < deadline
        time.sleep(POLL_SECONDS)


@pytest.mark.parametrize("method", METHODS)
def test_stop_leaves_neither_image_nor_copies(sandbox, command, method):
    sandbox.pace(copy_seconds=600)
    process = sandbox.popen(
        command(f"--copy-to={SECOND},{THIRD}", method=method), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for(sandbox, process, "CopyImage")
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 143, stderr
    assert sandbox.left() == {}


def test_same_command_after_a_kill_waits_for_the_copy_that_is_under_way(sandbox, command, images):
    sandbox.pace(copy_seconds=4)
    line = command(f"--copy-to={SECOND}")
    process = sandbox.popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(sandbox, process, "CopyImage")
    process.kill()
    process.wait(PATIENCE_SECONDS)
    done = sandbox.run(line)
    assert done.returncode == 0, done.stderr
    assert set(images()) == {HOME, SECOND}
    assert len(sandbox.calls("CopyImage")) == 1


def test_clean_up_after_a_kill_knows_the_copies(sandbox, command):
    """kill --force takes them from the journal, in whichever region they are."""
    sandbox.pace(copy_seconds=600)
    process = sandbox.popen(
        command(f"--copy-to={SECOND},{THIRD}"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(sandbox, process, "CopyImage")
    wait_for_images(sandbox, {SECOND, THIRD})
    process.kill()
    process.wait(PATIENCE_SECONDS)
    done = sandbox.run(["clouduploader", "kill", "2", "--force", "--yes"])
    assert done.returncode == 0, done.stderr + done.stdout
    assert sandbox.left() == {}
