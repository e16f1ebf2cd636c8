import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.platforms import install_package

import clouduploader
from clouduploader.errors import ConfigError, PluginLoadError, UnknownTargetError
from clouduploader.platforms import BUILT_INS
from clouduploader.store import config
from clouduploader.uploads import registry

OWN = f"clouduploader {clouduploader.__version__}"
PLUGIN = """
from clouduploader.errors import ConfigError
from clouduploader.plugin import Platform

class Made(Platform):
    settings_defaults = {"key": ""}
    def __init__(self, context):
        super().__init__(context)
        self.context = context
    upload = remove = lambda self: None

class Lame(Platform):
    upload = lambda self: None

class Foreign:
    def __init__(self, context): pass
    upload = remove = lambda self: None

def refuse(context): raise ConfigError("setting x is wrong")
def crash(context): raise ZeroDivisionError("two\\nlines")
def leave(context): raise SystemExit(3)
def nothing(context): return None
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a package, as pip would, which offers platforms."""
    monkeypatch.syspath_prepend(tmp_path)

    def run(package, ending=".dist-info", **platforms):
        install_package(tmp_path, package, PLUGIN, version="1.2", ending=ending, **platforms)

    yield run
    for name in list(sys.modules):
        if name.startswith("cloud_of_"):
            del sys.modules[name]


@pytest.fixture
def settings(tmp_path):
    """Return a function that reads a configuration with these lines."""

    def read(text=""):
        (tmp_path / config.FILE_NAME).write_text(text)
        return config.load(home=tmp_path, spool=None, environment={"A": "b"})

    return read


def test_built_ins_are_those_of_the_package(settings):
    parser = configparser.ConfigParser()
    parser.read(Path(clouduploader.__file__).parents[1] / "setup.cfg")
    lines = parser["options.entry_points"][registry.GROUP].strip().splitlines()
    assert dict(line.split(" = ") for line in lines) == registry.BUILT_INS
    assert set(registry.names()) >= set(registry.BUILT_INS)
    for target in registry.BUILT_INS:
        assert registry.load(target, settings()).fields


def test_plugin_is_made_from_its_context(install, settings, tmp_path):
    install("cloud_of_a", alpha="cloud_of_a:Made", **{"be-ta": "cloud_of_a:Made [extra]"})
    assert registry.names() == sorted(["alpha", "be-ta", *BUILT_INS])
    context = registry.load("alpha", settings("[alpha]\nkey = %x\n[ec2]\nother = y\n")).context
    assert (context.home, context.settings, context.environment) == (tmp_path, {"key": "%x"}, {"A": "b"})
    assert registry.load("be-ta", settings()).context.settings == {}


def test_platform_is_made_without_settings(install):
    install("cloud_of_x", x="cloud_of_x:Made")
    made = registry.load_without_settings("x")
    assert (made.settings, made.context.target) == ({"key": ""}, "x")
    with pytest.raises(UnknownTargetError):
        registry.load_without_settings("y")


@pytest.mark.parametrize("ending", [".dist-info", ".egg-info"])
def test_offers_name_their_package(install, ending):
    install("cloud_of_a", ending, alpha="cloud_of_a:Made")
    assert registry.offers() == [
        registry.PlatformOffer("alpha", "cloud_of_a 1.2", "cloud_of_a:Made"),
        *(registry.PlatformOffer(target, OWN, reference) for target, reference in sorted(BUILT_INS.items())),
    ]


@pytest.mark.parametrize("target", ["nowhere", "", "EC2", "clouduploader.platforms.ec2:Ec2", "../x", "a\nb", "\udcff"])
def test_unknown_target_names_what_there_is(settings, target):
    with pytest.raises(UnknownTargetError, match=f"there are: {', '.join(sorted(BUILT_INS))}$") as caught:
        registry.load(target, settings())
    assert caught.value.message.isprintable()


def test_stranger_of_a_built_ins_name_is_an_error_that_names_both(install, settings):
    install("cloud_of_a", ec2="cloud_of_a:Made")
    with pytest.raises(PluginLoadError, match=rf"'ec2': cloud_of_a 1\.2 \(.*\) and {OWN} \("):
        registry.load("ec2", settings())
    assert registry.load("directory", settings()).fields


def test_two_strangers_of_one_name_are_an_error_that_names_both(install, settings):
    install("cloud_of_a", alpha="cloud_of_a:Made")
    install("cloud_of_b", alpha="cloud_of_b:Made")
    with pytest.raises(PluginLoadError, match=r"'alpha': cloud_of_a 1\.2 \(.*\) and cloud_of_b 1\.2 \("):
        registry.load("alpha", settings())
    assert registry.names().count("alpha") == 1


@pytest.mark.parametrize(
    ("reference", "cause"),
    [
        ("cloud_of_nobody:Made", "ModuleNotFoundError: No module named 'cloud_of_nobody'"),
        ("cloud_of_a:missing", "AttributeError: .* has no attribute 'missing'"),
        ("cloud_of_a", "AttributeError"),
        ("cloud_of_a:crash", "ZeroDivisionError: two lines$"),
        ("cloud_of_a:leave", "SystemExit: 3"),
        ("cloud_of_a:PLUGIN", "AttributeError"),
        ("cloud_of_a:nothing", "gives a NoneType, not a clouduploader.plugin.Platform$"),
        ("cloud_of_a:Lame", "TypeError: Can't instantiate abstract class Lame .*remove"),
        ("cloud_of_a:Foreign", "gives a Foreign, not a clouduploader.plugin.Platform$"),
    ],
)
def test_broken_plugin_is_named_and_stops_nobody(install, settings, reference, cause):
    install("cloud_of_a", alpha=reference, beta="cloud_of_a:Made")
    message = rf"the platform 'alpha' of the package cloud_of_a 1\.2 can't be loaded: .*{cause}"
    with pytest.raises(PluginLoadError, match=message) as caught:
        registry.load("alpha", settings())
    assert "cloud_of_a" in caught.value.hint
    assert registry.load("beta", settings()).fields == ()
    assert registry.load("ec2", settings()).fields


def test_error_of_the_platform_itself_is_passed_on(install, settings):
    install("cloud_of_a", alpha="cloud_of_a:refuse")
    with pytest.raises(ConfigError, match="setting x is wrong"):
        registry.load("alpha", settings())


def test_package_in_an_archive_is_found(tmp_path, monkeypatch, settings):
    import zipfile

    path = tmp_path / "packages.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cloud_of_a.py", PLUGIN)
        archive.writestr("cloud_of_a-1.2.dist-info/METADATA", "Name: cloud_of_a\nVersion: 1.2\n")
        archive.writestr("cloud_of_a-1.2.dist-info/entry_points.txt", f"[{registry.GROUP}]\nec2 = cloud_of_a:Made\n")
    monkeypatch.syspath_prepend(path)
    with pytest.raises(PluginLoadError, match="more than one platform"):
        registry.load("ec2", settings())


def test_entry_points_that_cannot_be_read_are_left_to_python(install, tmp_path):
    install("cloud_of_a", alpha="cloud_of_a:Made")
    (tmp_path / "cloud_of_a-1.2.dist-info" / "entry_points.txt").write_bytes(b"[clouduploader.platforms]\n= \xff")
    assert not registry._is_alone()


def test_built_in_is_loaded_without_importlib_metadata(settings, tmp_path):
    settings()
    code = (
        "import pathlib, sys\n"
        "from clouduploader.store import config; from clouduploader.uploads import registry\n"
        f"home = pathlib.Path({str(tmp_path)!r})\n"
        "registry.load('directory', config.load(home=home, spool=None, environment={}))\n"
        "print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "clouduploader.platforms.directory" in modules
    assert "importlib.metadata" not in modules
    assert "clouduploader.platforms.ec2" not in modules


@pytest.mark.parametrize("points", [b"\xff\xfe\nx = y\n", b"nonsense nonsense\n=\nx\n"])
def test_package_whose_offers_cannot_be_read_is_named(install, tmp_path, settings, points):
    install("cloud_of_a", alpha="cloud_of_a:Made")
    (tmp_path / "cloud_of_a-1.2.dist-info" / "entry_points.txt").write_bytes(b"[clouduploader.platforms]\n" + points)
    with pytest.raises(PluginLoadError, match=re.escape(f"a package in {tmp_path} is damaged: ")):
        registry.load("alpha", settings())
