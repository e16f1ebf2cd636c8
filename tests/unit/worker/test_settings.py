import pytest

from clouduploader.errors import ConfigError
from clouduploader.store import config
from clouduploader.worker import settings


@pytest.fixture
def load(tmp_path):
    def load(*lines, **environment):
        (tmp_path / "clouduploader.conf").write_text("\n".join(["[worker]", *lines]))
        return config.load(home=tmp_path, spool=None, environment=environment)

    return load


@pytest.mark.parametrize(
    "line", ["max_jobs = 0", "tries = -1", "tries = 1.5", "tries =", "tries = x", "tries = " + "9" * 5000]
)
def test_number_that_is_none_is_refused(load, line):
    key = line.split()[0]
    with pytest.raises(ConfigError, match=rf"clouduploader\.conf: {key} in \[worker\] is '.*', not a number from 1 to"):
        settings.read(load(line))


def test_unknown_setting_is_refused(load):
    with pytest.raises(ConfigError, match=r"unknown setting 'speed' in \[worker\]"):
        settings.read(load("speed = high"))


def test_pauses_grow_up_to_a_limit():
    found = settings.WorkerSettings(retry_seconds=60, retry_max_seconds=300)
    assert [found.pause_seconds(try_) for try_ in (2, 3, 4, 5, 6, 1000)] == [60, 120, 240, 300, 300, 300]


def test_environment_has_what_uploads_need_and_no_more(load):
    loaded = load(
        "pass_environment = MINE OTHER",
        **{"PATH": "/bin", "LC_ALL": "C", "https_proxy": "http://p", "NO_PROXY": "x", "MINE": "1"},
        **{"REQUESTS_CA_BUNDLE": "/c", "SOMECLOUD_CA_BUNDLE": "/d"},
        **{"HOME": "/root", "AWS_SECRET_ACCESS_KEY": "s", "NOTIFY_SOCKET": "/n", "LD_PRELOAD": "x", "PYTHONPATH": "y"},
    )
    found = settings.upload_environment(loaded, settings.read(loaded))
    assert found.pop("CLOUDUPLOADER_HOME") == str(loaded.home.value)
    assert (found.pop("REQUESTS_CA_BUNDLE"), found.pop("SOMECLOUD_CA_BUNDLE")) == ("/c", "/d")
    assert found == {"PATH": "/bin", "LC_ALL": "C", "https_proxy": "http://p", "NO_PROXY": "x", "MINE": "1"}


def test_environment_without_a_path_has_the_default_one(load):
    loaded = load()
    assert settings.upload_environment(loaded, settings.read(loaded))["PATH"] == "/bin:/usr/bin"
