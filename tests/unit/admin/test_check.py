import datetime
import os

import pytest

from clouduploader.admin import check
from clouduploader.plugin import HomeFile, Level
from clouduploader.store import accounts, config, home

NOW = datetime.datetime(2026, 11, 22, 18, 0, tzinfo=datetime.UTC)


@pytest.fixture
def store(tmp_path):
    """A store with an account in it."""
    found = accounts.AccountStore(tmp_path)
    found.create("tom", "ec2", {}, now=NOW)
    return found


@pytest.fixture
def findings(tmp_path):
    """Return a function that gives what is found about the accounts: level, message, hint."""

    def find():
        settings = config.load(home=tmp_path, spool=tmp_path, environment={"PATH": os.defpath})
        found = check.run(settings, targets=["directory"], region=None, data_path=None)
        subject = str(tmp_path / accounts.FILE_NAME)
        return [(one.level, one.message, one.hint) for one in found if one.subject == subject]

    return find


def test_home_without_accounts_is_fine(findings):
    assert findings() == []


def test_accounts_that_are_right_are_counted(findings, store):
    assert findings() == [(Level.OK, "1 account", None)]
    store.create("anna", "ec2", {}, now=NOW)
    assert findings() == [(Level.OK, "2 accounts", None)]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_accounts_that_others_can_get_at_are_found(findings, store, mode):
    store.path.chmod(mode)
    warning = (Level.WARNING, f"others can get at it (mode {mode:04o})", f"chmod 600 {store.path}")
    assert findings() == [warning, (Level.OK, "1 account", None)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_accounts_of_another_owner_are_found(findings, store, tmp_path, let_all_enter):
    let_all_enter(tmp_path)
    os.chown(tmp_path, 65534, 65534)
    hint = f"chown --reference={tmp_path} {store.path}"
    warning = (Level.WARNING, "does not belong to the owner of the home", hint)
    found = findings()
    assert found[0] == warning
    assert "can't be opened or written" in found[1][1], "the daemons can't do that either"


def test_accounts_that_cannot_be_read_are_a_failure(findings, store):
    store.path.write_bytes(b"no database" * 99)
    ((level, message, hint),) = findings()
    assert level is Level.FAILURE
    assert "is damaged" in message
    assert hint


KEY = HomeFile(path="cloud/key", description="A key.", is_secret=True)
MAP = HomeFile(path="cloud/map", description="No secret.")


@pytest.mark.parametrize("name", ["secret.pem", KEY.path])
def test_secrets_of_the_admin_may_be_a_groups(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch(0o640)
    assert list(home.exposed(tmp_path, [KEY, MAP])) == []
    path.chmod(0o644)
    assert list(home.exposed(tmp_path, [KEY, MAP])) == [path]


def test_file_of_a_platform_that_is_no_secret_may_be_read(tmp_path):
    (tmp_path / "cloud").mkdir()
    (tmp_path / MAP.path).touch(0o644)
    assert list(home.exposed(tmp_path, [MAP])) == []


def test_damaged_package_of_a_platform_is_a_finding(tmp_path, install_package):
    install_package("broken", "", broken="broken:Broken")
    (points,) = install_package.site.glob("*/entry_points.txt")
    points.write_bytes(b"[clouduploader.platforms]\n\xff")
    settings = config.load(home=tmp_path, spool=tmp_path, environment={"PATH": os.defpath})
    *_, last = check.run(settings, targets=["directory"], region=None, data_path=None)
    assert (last.level, last.subject) == (Level.FAILURE, "platform directory")
    assert "is damaged" in last.message


@pytest.mark.parametrize("target", ["file-cloud", "directory"])
def test_secret_of_any_platform_there_is_is_found(file_cloud, target):
    path = file_cloud.place / "home" / "file-cloud.key"
    path.touch(0o644)
    settings = config.load(home=path.parent, spool=file_cloud.place, environment={"PATH": os.defpath})
    found = check.run(settings, targets=[target], region=None, data_path=None)
    assert [one.hint for one in found if one.subject == str(path)] == [f"chmod 600 {path}"]


@pytest.mark.parametrize(
    ("settings", "files", "account", "targets"),
    [
        ("", [], None, []),
        ("[azure]\n[gce]\n", [], None, []),
        ("[azure]\nmethod = disk\n", [], None, ["azure"]),
        ("[directory]\npath = /srv/images\n", ["clouds.yaml"], "gce", ["directory", "gce", "openstack"]),
        ("", [".ec2utils.conf"], None, ["ec2"]),
    ],
)
def test_configured_is_what_has_settings_or_files_or_accounts(tmp_path, settings, files, account, targets):
    (tmp_path / config.FILE_NAME).write_text(settings)
    for name in files:
        (tmp_path / name).touch()
    if account:
        accounts.AccountStore(tmp_path).create("tom", account, {}, now=NOW)
    assert check.configured(config.load(home=tmp_path, spool=tmp_path, environment={})) == targets
