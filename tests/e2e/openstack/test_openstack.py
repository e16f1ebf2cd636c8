"""What is OpenStack's own: faults of Keystone and Glance, rights, regions, members, imports."""

import hashlib
import json
import sys

import pytest

from clouduploader.errors import ExitCode
from clouduploader.platforms.openstack import accounts
from clouduploader.sandbox.openstack.layout import AUTH_URL

PUT = "PUT /v2/images/{image_id}/file"
SIZE_BYTES = 9 << 20

# Makes an application credential in the sandbox; prints id and secret.
MAKER = """
import json, sys
from clouduploader.sandbox.openstack.rest import User
auth_url, ca, user, wanted = json.loads(sys.argv[1])
user = User(auth_url, **user, ca=ca)
made = user.make(f"users/{user.id}/application_credentials", {"application_credential": wanted})
print(json.dumps({"id": made["id"], "secret": made["secret"]}))
"""


def make_credential(case, name, rules=None):
    described = case.sandbox.description
    wanted = {"name": name, "roles": [{"name": accounts.ROLE}], **({"access_rules": rules} if rules else {})}
    order = json.dumps([AUTH_URL, described["ca"], described["user"], wanted])
    done = case.sandbox.run([sys.executable, "-c", MAKER, order])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def image(make_image):
    return make_image("disk.raw", size_bytes=SIZE_BYTES)


@pytest.mark.parametrize(
    ("fault", "puts"),
    [
        ({"cut_request_bytes": 3 << 20}, 2),
        ({"status": 503}, 2),
        ({"status": 429}, 2),
        ({"lose_answer": True}, 1),
    ],
    ids=["cut", "unavailable", "throttled", "lost-answer"],
)
def test_transfer_that_fails_once_is_made_good(case, image, fault, puts):
    case.sandbox.fault(PUT, first=1, **fault)
    case.assert_only(case.upload(image.path), image.raw)
    assert len(case.sandbox.calls(PUT)) == puts


def test_content_that_was_changed_on_the_way_is_refused_and_removed(case, image):
    case.sandbox.fault(PUT, corrupt=True)
    done = case.sandbox.run(case.command(image.path))
    assert done.returncode == ExitCode.PROTOCOL
    assert "is not what was sent: its sha512 is" in done.stderr
    assert (case.images(), case.others()) == ([], [])


def test_every_call_may_fail_once(case, image):
    actions = ["POST /v3/auth/tokens", "GET /v2/images", "POST /v2/images", "GET /v2/images/{image_id}"]
    case.sandbox.faults(*({"action": action, "status": 503, "first": 1} for action in actions))
    case.assert_only(case.upload(image.path), image.raw)


def test_lost_answer_to_the_creation_makes_no_second_image(case, image):
    case.sandbox.fault("POST /v2/images", lose_answer=True, first=1)
    case.assert_only(case.upload(image.path), image.raw)


def test_digest_and_properties_are_as_glance_reports_them(case, image):
    words = ["--hw-firmware-type=uefi", "--hw-machine-type=q35", "--hw-disk-bus=virtio", "--hw-vif-model=virtio"]
    words += ["--os-distro=opensuse", "--min-disk=1", "--min-ram=512", "--architecture=arm64", "--tag=nightly"]
    found = case.image(case.upload(image.path, *words, "--property=hw_rng_model=virtio", "--visibility=community"))
    assert found["os_hash_value"] == hashlib.sha512(image.raw).hexdigest()
    names = ("hw_firmware_type", "hw_machine_type", "hw_disk_bus", "hw_vif_model", "os_distro", "hw_rng_model")
    assert [found[name] for name in names] == ["uefi", "q35", "virtio", "virtio", "opensuse", "virtio"]
    assert (found["min_disk"], found["min_ram"], found["architecture"]) == (1, 512, "aarch64")
    assert (found["visibility"], "nightly" in found["tags"]) == ("community", True)


def test_qcow2_is_sent_as_it_is(case, make_image):
    image = make_image("disk.qcow2", packing="qcow2", size_bytes=SIZE_BYTES)
    result = case.upload(image.path, "--disk-format=qcow2")
    assert case.image(result)["disk_format"] == "qcow2"
    assert case.disk(result) == image.path.read_bytes()


def test_further_region_gets_the_same_image(case, image):
    done = case.sandbox.run([*case.command(image.path, "--copy-to=RegionTwo,Nowhere"), "--json"])
    answer = json.loads(done.stdout)["data"]
    assert done.returncode == ExitCode.TEMPORARY
    assert [item["subject"] for item in answer["shortfalls"]] == ["Nowhere"]
    assert [item["region"] for item in answer["objects"]] == ["RegionOne", "RegionTwo"]
    assert [case.disk(item["id"]) for item in answer["objects"]] == [image.raw] * 2


def test_image_is_imported_and_shared_where_the_credential_allows_it(case, image):
    described = case.sandbox.description
    full = case.credential(described["full_credential"])
    more = ["--method=glance-direct", f"--member={described['other_project_id']}", *full]
    result = case.upload(image.path, *more)
    case.assert_only(result, image.raw)
    assert case.image(result)["visibility"] == "shared"
    assert case.sandbox.calls(PUT) == []
    assert case.upload(image.path, *more) == result


def test_staged_content_goes_with_its_image(case, image):
    case.sandbox.fault("POST /v2/images/{image_id}/import", status=403)
    full = case.credential(case.sandbox.description["full_credential"])
    done = case.sandbox.run(case.command(image.path, "--method=glance-direct", *full))
    assert done.returncode == ExitCode.DENIED, done.stderr
    assert (case.images(), case.others()) == ([], [])


def test_person_s_own_settings_serve_by_hand_and_for_no_job(case, image):
    words = ["clouduploader", "upload", "--target=openstack", "--region=RegionTwo", "--name=mine", image.path]
    done = case.sandbox.run(words)
    assert done.returncode == 0, done.stderr
    case.assert_only(done.stdout.strip(), image.raw)
    job = case.sandbox.spool / "1"
    data = json.loads((case.sandbox.spool / "1.data").read_text())
    del data["application_credential_id"], data["application_credential_secret"]
    (case.sandbox.spool / "1.data").write_text(json.dumps(data))
    done = case.sandbox.run(["clouduploader", "sandbox-user", "openstack", f"{job}.file", f"{job}.data", f"{job}.log"])
    assert done.returncode == ExitCode.DATA
    assert len(case.images()) == 1


@pytest.mark.parametrize("number", range(len(accounts.UPLOAD_RULES) - 1))  # the last is for what fails
def test_each_rule_is_needed(case, image, number):
    rules = accounts.rules(())
    left = rules.pop(number)
    credential = make_credential(case, f"without-{number}", rules)
    done = case.sandbox.run(case.command(image.path, *case.credential(credential)))
    assert done.returncode == ExitCode.DENIED, done.stderr
    assert f"it needs one for {left['method']} {left['path'].partition('*')[0]}" in done.stderr
    assert case.images() == []


def test_account_is_filled_and_verified(case):
    run = case.sandbox.run
    assert run(["clouduploader", "account", "create", "tom", "--target=openstack"]).returncode == 0
    shown = json.loads(run(["clouduploader", "account", "show", "tom", "--target=openstack", "--json"]).stdout)["data"]
    wide = make_credential(case, "wide")
    least = make_credential(case, "as-told", shown["policies"]["access_rules"])
    for credential in (wide, least):
        values = {"cloud": "sandbox", **{f"application_credential_{name}": credential[name] for name in credential}}
        for name, value in values.items():
            given = [value] if not name.endswith("secret") else []
            words = ["clouduploader", "account", "set", "tom", name, *given, "--target=openstack"]
            done = run(words, input="" if given else value)
            assert done.returncode == 0, done.stderr
        done = run(["clouduploader", "account", "verify", "tom", "--target=openstack"])
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("has no access rules" in done.stdout) is (credential is wide)
    assert least["secret"] not in run(["clouduploader", "account", "list"]).stdout
