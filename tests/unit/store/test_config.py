import os
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import ConfigError
from clouduploader.store import config


@pytest.fixture
def make_home(tmp_path):
    """A factory of a home with a settings file of that text, or without one."""

    def make(text=None):
        if text is not None:
            (tmp_path / "clouduploader.conf").write_bytes(os.fsencode(text))
        return tmp_path

    return make


def test_defaults_are_those_of_obs():
    found = config.load(home=None, spool=None, environment={})
    assert found.home == config.Setting(Path("/etc/obs/cloudupload"), "default")
    assert found.spool.value == Path("/srv/obs/cloudupload")
    assert found.path == Path("/etc/obs/cloudupload/clouduploader.conf")


def test_home_without_a_file_gives_defaults(make_home):
    found = config.load(home=make_home(), spool=None, environment={})
    assert found.spool == config.Setting(config.DEFAULT_SPOOL, "default")
    assert found.events == config.Setting(None, "default")
    assert found.platforms == {}


def test_option_goes_before_environment_before_file_before_default(make_home, tmp_path):
    home = make_home("[clouduploader]\nspool = /from/file\n")
    variables = {"CLOUDUPLOADER_HOME": str(home), "CLOUDUPLOADER_SPOOL": "/from/variable"}

    def spool(given, environment):
        return config.load(home=None, spool=given, environment=environment).spool

    assert spool(Path("/from/option"), variables) == config.Setting(Path("/from/option"), "--spool")
    assert spool(None, variables) == config.Setting(Path("/from/variable"), "CLOUDUPLOADER_SPOOL")
    del variables["CLOUDUPLOADER_SPOOL"]
    assert spool(None, variables) == config.Setting(Path("/from/file"), str(home / "clouduploader.conf"))
    other = tmp_path / "other"
    found = config.load(home=other, spool=None, environment=variables)
    assert found.home == config.Setting(other, "--home")
    assert found.spool.source == "default"


def test_empty_variable_is_as_good_as_none():
    found = config.load(home=None, spool=None, environment={"CLOUDUPLOADER_HOME": "", "CLOUDUPLOADER_SPOOL": ""})
    assert (found.home.source, found.spool.source) == ("default", "default")


def test_relative_paths_become_absolute(make_home, monkeypatch):
    monkeypatch.chdir(make_home())
    found = config.load(home=Path("home"), spool=None, environment={"CLOUDUPLOADER_SPOOL": "spool"})
    assert found.home.value == Path.cwd() / "home"
    assert found.spool.value == Path.cwd() / "spool"


@pytest.fixture
def plain_user(monkeypatch, tmp_path):
    """A function that makes us a user to whom nothing of OBS's belongs; or the one to whom it does."""

    def be(*, is_service=False):
        obs = tmp_path / "obs"
        obs.mkdir()
        monkeypatch.setattr(os, "geteuid", lambda: obs.stat().st_uid if is_service else 12345)
        for name in ("DEFAULT_HOME", "DEFAULT_SPOOL"):
            monkeypatch.setattr(config, name, obs)

    return be


@pytest.mark.parametrize(
    ("variables", "home", "spool"),
    [
        ({"HOME": "/home/tom"}, "/home/tom/.config", "/home/tom/.local/state"),
        ({"HOME": "/home/tom", "XDG_STATE_HOME": "/big"}, "/home/tom/.config", "/big"),
        ({"XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"}, "/c", "/s"),
        ({"HOME": "/u", "XDG_CONFIG_HOME": "c", "XDG_STATE_HOME": ""}, "/u/.config", "/u/.local/state"),
    ],
)  # fmt: skip
def test_plain_user_has_places_of_his_own(plain_user, variables, home, spool):
    plain_user()
    found = config.load(home=None, spool=None, environment=variables)
    assert found.home == config.Setting(Path(home, "clouduploader"), "default")
    assert found.spool == config.Setting(Path(spool, "clouduploader"), "default")
    assert found.state.value == Path(spool, "clouduploader", "journal")
    assert found.own_directories == (found.home.value, found.spool.value)


def test_plain_user_without_a_home_is_told_so(plain_user):
    plain_user()
    with pytest.raises(ConfigError, match="no home directory"):
        config.load(home=None, spool=None, environment={})
    found = config.load(home=None, spool=None, environment={"XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"})
    assert found.own_directories == (Path("/c/clouduploader"), Path("/s/clouduploader"))


def test_places_that_were_named_are_nobodys_own(plain_user):
    plain_user()
    variables = {"HOME": "/home/tom", "CLOUDUPLOADER_HOME": "/h"}
    assert config.load(home=None, spool=Path("/s"), environment=variables).own_directories == ()


def test_user_of_the_service_has_those_of_obs(plain_user, tmp_path):
    plain_user(is_service=True)
    found = config.load(home=None, spool=None, environment={"HOME": "/home/tom"})
    assert (found.home.value, found.spool.value, found.own_directories) == (tmp_path / "obs", tmp_path / "obs", ())


def test_settings_that_are_no_file_are_not_waited_for(make_home):
    home = make_home()
    os.mkfifo(home / "clouduploader.conf")
    with pytest.raises(ConfigError, match="can't be read: it is not a regular file"):
        config.load(home=home, spool=None, environment={})


@pytest.mark.parametrize(("text", "value"), [("events = /run/{job}.json", "/run/{job}.json"), ("events =", None)])
def test_events_come_from_the_file(make_home, text, value):
    home = make_home(f"[clouduploader]\n{text}\n")
    assert config.load(home=home, spool=None, environment={}).events.value == value


def test_state_is_in_the_spool_unless_somebody_says_otherwise(make_home):
    home = make_home("[clouduploader]\nstate = /from/file\n")
    variables = {"CLOUDUPLOADER_STATE": "/from/variable"}
    assert config.load(home=home, spool=None, environment=variables).state.value == Path("/from/variable")
    assert config.load(home=home, spool=None, environment={}).state == config.Setting(
        Path("/from/file"), str(home / "clouduploader.conf")
    )
    found = config.load(home=home / "none", spool=Path("/my/spool"), environment={})
    assert found.state == config.Setting(Path("/my/spool/journal"), "default")


def test_max_size_comes_from_the_file(make_home):
    home = make_home("[clouduploader]\nmax_size = 20G\n")
    assert config.load(home=home, spool=None, environment={}).max_size.value == 20 << 30
    assert config.load(home=home / "none", spool=None, environment={}).max_size == config.Setting(1 << 40, "default")


def test_max_size_that_is_no_size_is_named(make_home):
    home = make_home("[clouduploader]\nmax_size = big\n")
    with pytest.raises(ConfigError, match=r"clouduploader\.conf: max_size is 'big', not a size such as 20G"):
        config.load(home=home, spool=None, environment={})


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("1", 1), ("512k", 512 << 10), ("10 MiB", 10 << 20), ("20G", 20 << 30), ("1t", 1 << 40), (" 7 ", 7)],
)
def test_size_is_read(text, size_bytes):
    assert config.parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "0", "0G", "-1", "1.5G", "1P", "G", "1 GB", "1e9", "\u0663", "9" * 19])
def test_size_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="not a size such as 20G"):
        config.parse_size(text)


def test_other_sections_belong_to_platforms(make_home):
    home = make_home(
        "[clouduploader]\n[ec2]\nprofile = %s$(x)\nSSH_timeout = 30\n[directory]\npath = /srv\n[DEFAULT]\na = b\n"
    )
    found = config.load(home=home, spool=None, environment={})
    assert found.platforms == {
        "ec2": {"profile": "%s$(x)", "ssh_timeout": "30"},
        "directory": {"path": "/srv"},
        "DEFAULT": {"a": "b"},  # not handed down to the others, as Python's configparser would
    }


def test_unknown_setting_of_ours_is_named_with_those_there_are(make_home):
    home = make_home("[clouduploader]\nspol = /x\n")
    with pytest.raises(ConfigError, match=r"clouduploader\.conf: unknown setting 'spol'") as caught:
        config.load(home=home, spool=None, environment={})
    assert caught.value.hint == "Known are: ca, cert, events, key, max_size, send_clear_tokens, spool, state."


@pytest.mark.parametrize(
    "text",
    [
        "spool = /x\n",
        "[clouduploader\n",
        "[ec2]\n[ec2]\n",
        "[ec2]\na = 1\na = 2\n",
        "[ec2]\njust words\n",
        "[ec2]\na = \udcff\n",
        "[clouduploader]\nspool = /a\0b\n",
        "\0",
        "  [ec2]\n]\n",
        "[ec2]\n: x\n",
    ],
)
def test_broken_file_is_one_line_with_its_path(make_home, text):
    home = make_home(text)
    with pytest.raises(ConfigError, match=r"clouduploader\.conf is not an INI file: ") as caught:
        config.load(home=home, spool=None, environment={})
    assert "\n" not in caught.value.message


def test_file_that_cannot_be_read_is_an_error_not_a_default(make_home):
    home = make_home()
    (home / "clouduploader.conf").mkdir()
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        config.load(home=home, spool=None, environment={})


def test_representation_does_not_show_the_environment():
    found = config.load(home=None, spool=None, environment={"AWS_SECRET_ACCESS_KEY": "sesame"})
    assert "sesame" not in repr(found)
    assert found.environment["AWS_SECRET_ACCESS_KEY"] == "sesame"


@hypothesis.given(st.one_of(st.binary(), st.text(st.sampled_from('[]=:\n #;a%\\"')).map(str.encode)))
def test_any_file_is_settings_or_a_config_error(tmp_path_factory, data):
    home = tmp_path_factory.mktemp("home")
    (home / "clouduploader.conf").write_bytes(data)
    try:
        found = config.load(home=home, spool=None, environment={})
    except ConfigError as exc:
        assert str(home) in exc.message  # noqa: PT017 either outcome is right, any other exception is not
    else:
        assert found.home.value == home
