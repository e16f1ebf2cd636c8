import base64
import hashlib
import ssl
import subprocess

import pytest

from clouduploader.errors import DataError
from clouduploader.plugin import Level
from clouduploader.plugin.testing import RecordingReporter


@pytest.fixture
def accounts(make_uploader):
    return make_uploader().platform.accounts


def values(cloud, **others):
    account = cloud.account
    return {
        "tenant": account.tenant,
        "application_id": account.application_id,
        "application_key": account.application_key,
        **others,
    }


def verify(accounts, given):
    return accounts.verify(given, reporter=RecordingReporter())


def test_account_with_the_rights_of_the_guide_is_fine(cloud, accounts):
    cloud.allow(set())
    found = verify(accounts, values(cloud))
    assert (found.is_usable, found.is_open) == (True, False)
    assert {finding.level for finding in found.findings} == {Level.OK}


def test_rights_that_lack_are_named(cloud, accounts):
    cloud.account.rights = {
        "actions": ("Microsoft.Compute/images/*", "Microsoft.Resources/subscriptions/resourceGroups/read"),
        "dataActions": (),
    }
    found = verify(accounts, values(cloud))
    assert not found.is_usable
    assert "Microsoft.Compute/disks/write" in found.findings[-1].message
    assert "images/write" not in found.findings[-1].message


def test_group_without_rights_is_a_warning_beside_one_that_will_do(cloud, accounts):
    cloud.allow(set())
    cloud.account.other_groups = ["other"]
    found = verify(accounts, values(cloud))
    assert found.is_usable
    assert [(one.subject, one.level) for one in found.findings[1:]] == [
        (f"resource group {cloud.account.group}", Level.OK),
        (f"resource group {cloud.account.gallery_group}", Level.OK),
        ("resource group other", Level.WARNING),
    ]


def test_rights_that_are_too_wide_are_a_warning(cloud, accounts):
    cloud.account.rights = {"actions": ("*",), "dataActions": ()}
    found = verify(accounts, values(cloud))
    assert found.is_usable
    assert found.findings[-1].level is Level.WARNING
    assert "roleAssignments/write" in found.findings[-1].message


def test_wrong_secret_is_not_usable(cloud, accounts):
    found = verify(accounts, values(cloud, application_key="wrong secret"))
    assert not found.is_usable
    assert "AADSTS7000215" in found.findings[0].message


def test_secret_that_lacks_is_said(cloud, accounts):
    with pytest.raises(DataError, match="either application_key or application_certificate"):
        verify(accounts, values(cloud, application_key=""))


def test_text_that_is_no_certificate_is_said_without_it(cloud, accounts):
    found = verify(accounts, values(cloud, application_key="", application_certificate="-----BEGIN NONSENSE"))
    assert not found.is_usable
    assert found.findings[0].message == "application_certificate holds no certificate with its private key, in PEM"


def test_certificate_lets_in(cloud, accounts, tmp_path):
    pem, thumbprints = make_certificate(tmp_path)
    cloud.account.certificates = thumbprints
    found = verify(accounts, values(cloud, application_key="", application_certificate=pem))
    assert found.is_usable


def make_certificate(directory):
    """A certificate with its key, and the digests by which it is named in an assertion."""
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    digests = [hashlib.sha1(der, usedforsecurity=False).digest(), hashlib.sha256(der).digest()]
    names = {base64.urlsafe_b64encode(digest).decode().rstrip("=") for digest in digests}
    return key.read_text() + certificate.read_text(), names | {f"{name}=" for name in names}


def test_guide_has_the_role_for_the_subscription(accounts):
    guide = accounts.guide({"subscription_id": "s-1"}, extras=("blob",), reporter=RecordingReporter())
    assert guide.policies["role"]["AssignableScopes"] == ["/subscriptions/s-1/resourceGroups/RESOURCE-GROUP"]
    assert any(action.endswith("blobs/write") for action in guide.policies["role"]["DataActions"])
    assert guide.scripts["commands"].splitlines()[-1].startswith("az ad sp create-for-rbac")
