"""The sample configuration: what it shows as a default is one, and the rest is understood."""

import configparser
import dataclasses
import re
from pathlib import Path

import pytest

from clouduploader import platforms
from clouduploader.platforms.ec2 import settings
from clouduploader.platforms.ec2.ec2uploadimg import helper_config
from clouduploader.server import settings as server_settings
from clouduploader.store import config
from clouduploader.worker import settings as worker_settings

SAMPLES = Path(__file__).parents[3] / "etc/obs/cloudupload"


@pytest.fixture
def make_home(tmp_path):
    """A factory: a home with the samples, each setting that is commented out switched on."""

    def make(marks):
        for name in ("clouduploader.conf", ".ec2utils.conf", ".aws/credentials"):
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(re.sub(rf"(?m)^{marks}(?=[a-z\[])", "", (SAMPLES / name).read_text()))
        return tmp_path

    return make


def credentials(home):
    """The file of AWS credentials, read as the SDK reads it."""
    parser = configparser.RawConfigParser()
    parser.read(home / ".aws/credentials")
    return parser


def test_samples_as_they_are_change_nothing():
    loaded = config.load(home=SAMPLES, spool=None, environment={})
    assert loaded.spool.source == "default"
    assert loaded.platforms == {target: {} for target in platforms.BUILT_INS}
    assert helper_config.names(SAMPLES) == []
    assert not credentials(SAMPLES).has_section("default")


def test_settings_shown_are_the_defaults(make_home):
    loaded = config.load(home=make_home("#"), spool=None, environment={})
    assert loaded.spool.value == config.DEFAULT_SPOOL
    assert loaded.events.value is None
    assert loaded.state.value == config.DEFAULT_SPOOL / config.STATE_NAME
    assert loaded.max_size.value == config.DEFAULT_MAX_SIZE
    assert loaded.worker.keys() == dataclasses.asdict(worker_settings.WorkerSettings()).keys()
    assert worker_settings.read(loaded) == worker_settings.WorkerSettings()
    assert loaded.platforms["ec2"].keys() == dataclasses.asdict(settings.Ec2Settings()).keys()
    assert settings.read(loaded.platforms["ec2"]) == settings.Ec2Settings()


def test_server_settings_shown_are_the_defaults(make_home):
    section = config.load(home=make_home("#"), spool=None, environment={}).server
    assert section.keys() == server_settings.KNOWN_KEYS
    assert server_settings.load(section, Path("x")) == server_settings.load({}, Path("x"))


def test_directory_shown_is_understood(make_home):
    loaded = config.load(home=make_home("##"), spool=None, environment={})
    assert loaded.platforms["directory"] == {"path": "/srv/images"}


def test_helpers_and_keys_shown_are_understood(make_home):
    home = make_home("#")
    assert helper_config.names(home) == ["eu-central-1", "us-east-1"]
    assert {helper_config.helper(home, name).user for name in helper_config.names(home)} == {"ec2-user"}
    assert credentials(home)["default"]["aws_access_key_id"].startswith("AKIA")


def test_known_settings_are_all_shown():
    text = (SAMPLES / "clouduploader.conf").read_text()
    assert [key for key in config.KNOWN_KEYS if not re.search(rf"(?m)^#{key} =", text)] == []
