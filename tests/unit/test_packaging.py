"""What is packaged: the files that the unit, the snippets and the spec name are there, and agree with the program."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import click
import pytest
import yaml
from packaging.requirements import Requirement

import clouduploader
from clouduploader.cli import kill, program
from clouduploader.cli.session import Session
from clouduploader.cluster import settings
from clouduploader.errors import ExitCode
from clouduploader.server import settings as server_settings
from clouduploader.store import config, credentials, database

TOP = Path(__file__).parents[2]
PACKAGING = TOP / "packaging"
SPEC = (PACKAGING / "clouduploader.spec").read_text("utf-8")
SAMPLES = TOP / "etc/obs/cloudupload"
HOST_UNIT = "clouduploader-host.service"
COMPOSE = yaml.safe_load((PACKAGING / "compose/compose.yaml").read_text("utf-8"))


def unit(unit_name="clouduploader.service"):
    """The settings of a unit by name, each with all its words; an empty one has none."""
    found = {}
    for line in (PACKAGING / unit_name).read_text("utf-8").splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(name, []).extend(value.split())
    return found


def container(instruction):
    """The words of the last such line of the Containerfile."""
    text = (TOP / "Containerfile").read_text("utf-8")
    return json.loads(re.findall(rf"(?m)^{instruction} (\[.*\])$", text)[-1])


def spec_section(name):
    """The lines of one section of the spec."""
    sections = "prep|build|install|pre|post|preun|postun|files|changelog"
    return re.search(rf"(?ms)^%{name}\n(.*?)(?=^%(?:{sections})$)", SPEC)[1]


def files_in(*names):
    """The files in directories of the checkout, as paths from its top."""
    found = [path for name in names for path in (TOP / name, *(TOP / name).rglob("*")) if path.is_file()]
    return {str(path.relative_to(TOP)) for path in found if path.suffix not in (".pyc", ".pyo")}


def setup_cfg():
    """What setup.cfg says."""
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")
    return setup


def host_files():
    """The files in packaging/ that a host needs to run the service."""
    return {name for name in files_in("packaging") if Path(name).suffix in (".service", ".sysusers", ".tmpfiles")}


def debian(name):
    """One of debhelper's files."""
    return (TOP / "debian" / f"clouduploader.{name}").read_text("utf-8")


def installed_sources():
    """The files that the spec installs from the source distribution."""
    commands = shlex.split(re.sub(r"\\\n|\n", " ", spec_section("install")))
    return {word for word in commands if re.match(r"(etc|packaging)/", word)}


def files_below(directory):
    """The files in a directory, as paths from there."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """A copy of this checkout without what is made in it."""
    made = shutil.ignore_patterns(
        ".*_cache", ".coverage", ".git", ".venv", ".hypothesis", "__pycache__", "*.egg-info", "_build", "build", "dist"
    )
    return shutil.copytree(TOP, tmp_path_factory.mktemp("committed") / "checkout", ignore=made, symlinks=True)


@pytest.fixture(scope="module")
def distributed(committed, tmp_path_factory):
    """The names in a source distribution that was built of this checkout."""
    place = tmp_path_factory.mktemp("sdist")
    shutil.copytree(committed, place / "checkout", symlinks=True)
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, place], cwd=place / "checkout", check=True, capture_output=True)
    (path,) = place.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {
            member.name.partition("/")[2] for member in archive if member.isfile() or member.issym() or member.islnk()
        }


def test_source_distribution_has_all_that_is_committed(committed, distributed):
    wanted = files_below(committed)
    assert {"etc/obs/cloudupload/.aws/credentials", "packaging/clouduploader.spec", "debian/rules"} <= wanted
    assert {name for name in wanted - distributed if not name.startswith(".git")} == set()


def test_every_package_is_of_this_version():
    changelog = (TOP / "debian/changelog").read_text("utf-8")
    changes = (TOP / "CHANGES.rst").read_text("utf-8")
    assert re.search(r"(?m)^Version: +(\S+)$", SPEC)[1] == clouduploader.__version__
    assert re.match(r"clouduploader \((.+?)\)", changelog)[1] == clouduploader.__version__
    assert re.search(r"(?m)^(\d\S+).*\n==", changes)[1] == clouduploader.__version__


def test_spec_requires_what_setup_cfg_does():
    setup = setup_cfg()
    wanted = setup["options"]["install_requires"].split() + setup["options.extras_require"]["server"].split()
    required = re.findall(r"(?m)^Requires: +%\{py\}-(\S+ >= \S+)$", SPEC)
    assert sorted(name.replace(" >= ", ">=") for name in required) == sorted(name.replace("_", "-") for name in wanted)


def test_constraints_have_all_that_setup_cfg_asks_for_with_digests():
    setup = setup_cfg()
    extras = setup["options.extras_require"]
    wanted = [setup["options"]["install_requires"]]
    wanted += [extras[name] for name in ("azure", "cluster", "ec2uploadimg", "fast", "gce", "openstack", "server")]
    text = (TOP / "packaging/constraints.txt").read_text("utf-8")
    found = dict(re.findall(r"(?m)^(\S+)==(\S+?)(?: ; .*)? \\\n    --hash=sha256:[0-9a-f]{64}", text))
    assert len(found) == len(re.findall(r"(?m)^\S+==", text))
    for line in "\n".join(wanted).split("\n"):
        if line and not line.startswith("clouduploader["):
            asked = Requirement(line)
            assert found[asked.name.replace("_", "-").replace(".", "-").lower()] in asked.specifier


def test_spec_installs_every_file_there_is():
    sources = installed_sources()
    assert [name for name in sources if not (TOP / name).is_file()] == []
    assert sources == files_in("etc") | host_files()


def test_debian_package_installs_every_file_there_is():
    lines = [line.split() for name in ("install", "manpages") for line in debian(name).splitlines()]
    assert files_in(*(line[0] for line in lines)) == files_in("completion", "etc", "man")
    for name in host_files():
        theirs = re.sub(
            r"^(clouduploader)-", r"\1.\1-", Path(name).name
        )  # of a unit with another name than the package
        assert (TOP / "debian" / theirs).read_bytes() == (TOP / name).read_bytes()


def test_what_brings_python_packages_along_names_extras_that_there_are():
    for name in ("debian/rules", "Containerfile"):
        extras = re.search(r"'\S*\[(\S+)\]'", (TOP / name).read_text("utf-8"))[1].split(",")
        assert set(extras) <= set(setup_cfg()["options.extras_require"])
        assert {"cluster", "server"} <= set(extras)


def test_container_is_built_of_all_that_setup_cfg_names():
    setup = setup_cfg()
    sources = [*" ".join(setup["options.data_files"].values()).split(), setup["metadata"]["license_files"]]
    needed = {Path(source).parts[0] for source in sources} | {
        "README.rst",
        "clouduploader",
        "pyproject.toml",
        "setup.cfg",
    }
    lines = (TOP / ".dockerignore").read_text("utf-8").splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == needed


def test_wheel_has_all_that_belongs_beside_the_program_and_the_spec_lists_it():
    installed = {
        f"{place}/{Path(source).name}": source
        for place, sources in setup_cfg()["options.data_files"].items()
        for source in sources.split()
    }
    assert set(installed.values()) == files_in("completion", "etc", "man") | host_files()
    listed = spec_section("files").replace("%{_datadir}", "share").replace("%{_mandir}", "share/man").split()
    missing = [path for path in installed if path not in listed and f"{path}*" not in listed]
    assert [
        path for path in missing if not path.startswith("share/clouduploader/")
    ] == []  # it installs these elsewhere


def test_spec_lists_every_file_that_it_installs():
    listed = spec_section("files")
    for path in SAMPLES.rglob("*"):
        assert f" %{{_sysconfdir}}/obs/cloudupload/{path.relative_to(SAMPLES)}\n" in listed
    assert str(config.DEFAULT_HOME) == "/etc/obs/cloudupload"


def test_user_of_the_spec_is_that_of_the_snippet_and_the_unit():
    lines = (PACKAGING / "clouduploader.sysusers").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if not line.startswith("#")]
    assert line in spec_section("pre").splitlines()
    user = shlex.split(line)[1]
    assert unit()["User"] == unit()["Group"] == [user]
    assert f"%attr(0750,{user},{user}) %dir %{{_sysconfdir}}/obs/cloudupload\n" in SPEC


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(unit()["ExecStart"], "serve", id="unit"),
        pytest.param(unit(HOST_UNIT)["ExecStart"], "worker", id="host"),
        pytest.param(container("ENTRYPOINT") + container("CMD"), "serve", id="container"),
        *(
            pytest.param(["clouduploader", *service["command"]], service["command"][0], id=f"compose-{name}")
            for name, service in COMPOSE["services"].items()
            if name != "rabbitmq"
        ),
    ],
)
def test_service_is_a_command_that_there_is(words, expected):
    executable, *arguments = words
    assert executable == "clouduploader"
    name, command, rest = program.clouduploader_command.resolve_command(
        click.Context(program.clouduploader_command, obj=Session()), arguments
    )
    assert (name, command.name) == (expected, expected)
    command.make_context(name, rest, obj=Session())


def test_source_distribution_has_the_page(distributed):
    page = {path.name for path in (TOP / "clouduploader/server/ui").iterdir()}
    assert {f"clouduploader/server/ui/{name}" for name in page} | {"clouduploader/server/openapi.json"} <= distributed


def test_unit_may_write_what_the_snippet_makes_and_the_program_uses():
    lines = (PACKAGING / "clouduploader.tmpfiles").read_text("utf-8").splitlines()
    made = {line.split()[1]: line.split()[3:5] for line in lines if line.startswith("d ")}
    writable = unit()["ReadWritePaths"]
    assert [path for path in writable if not path.startswith("-")] == [str(config.DEFAULT_SPOOL)]
    assert {path.lstrip("-") for path in writable} - {"/srv/obs/run"} <= made.keys()
    bound = [path for path in writable if path != f"-{config.DEFAULT_HOME}/{database.DIRECTORY}"]
    assert len(bound) == len(writable) - 1
    assert unit()["BindPaths"] == bound
    assert set(map(tuple, made.values())) == {(*unit()["User"], *unit()["Group"])}


def test_private_directories_outlive_the_service():
    settings = unit()
    assert settings["KillMode"] == ["process"]
    assert settings["RuntimeDirectoryPreserve"] == ["yes"]
    assert settings["Environment"] == [f"TMPDIR=/run/{settings['RuntimeDirectory'][0]}"]


def test_uploads_end_after_the_service_and_before_the_network():
    uploads, service = unit("clouduploader-uploads.service"), unit()
    assert "clouduploader-uploads.service" in service["Wants"]
    assert uploads["Before"] == ["clouduploader.service"]  # systemd stops in the reverse order
    assert uploads["After"] == ["network-online.target"]
    assert uploads["User"] == uploads["Group"] == service["User"]
    assert int(uploads["TimeoutStopSec"][0]) > kill.KILL_TIMEOUT_SECONDS


@pytest.mark.parametrize("name", ["clouduploader.service", "clouduploader-uploads.service", HOST_UNIT])
def test_units_leave_no_core_files(name):
    assert unit(name)["LimitCORE"] == ["0"]


@pytest.mark.parametrize("name", ["clouduploader.service", HOST_UNIT])
def test_unit_bounds_memory_and_processes(name):
    assert unit(name)["MemoryMax"] == ["4G"]
    assert unit(name)["TasksMax"] == ["1024"]


def test_unit_is_not_restarted_for_what_another_try_does_not_heal():
    hopeless = [int(code) for code in unit()["RestartPreventExitStatus"]]
    assert hopeless == [ExitCode.USAGE, ExitCode.CONFIG]
    assert int(unit(HOST_UNIT)["RestartPreventExitStatus"][1]) == ExitCode.UNAVAILABLE
    of_host = {int(code) for code in unit(HOST_UNIT)["RestartPreventExitStatus"]}
    assert set(hopeless) < of_host
    assert ExitCode.TEMPORARY not in of_host  # with which it ends when Celery can't go on


def test_no_process_of_a_host_outlives_it_and_uploaders_get_no_sigterm_by_a_stop():
    host = unit(HOST_UNIT)
    assert (host["KillMode"], host["KillSignal"]) == (["control-group"], ["SIGKILL"])
    assert {"kill", "-TERM"} <= set(host["ExecStop"])
    assert int(host["TimeoutStopSec"][0]) > settings.ClusterSettings(host="a").lease_seconds


def test_host_is_hardened_as_the_service_is():
    service, host = unit(), unit(HOST_UNIT)
    own = {
        "Documentation", "Wants", "After", "StartLimitIntervalSec", "StartLimitBurst", "Type", "Restart", "RestartSec",
        "User", "Group", "UMask", "OOMPolicy", "PrivateTmp", "WantedBy", "MemoryMax", "TasksMax", "LimitCORE",
    }  # fmt: skip
    start = list(service).index("ProtectSystem")
    hardening = [
        name for name in list(service)[start:] if name not in own | {"LimitNOFILE", "BindPaths", "ReadWritePaths"}
    ]
    assert len(hardening) > 20
    assert {name: host.get(name) for name in hardening} == {name: service[name] for name in hardening}
    assert host["BindPaths"] == host["ReadWritePaths"] == [str(config.DEFAULT_SPOOL)]
    assert host["User"] == host["Group"] == service["User"]


def test_compose_file_agrees_with_what_it_mounts():
    place = PACKAGING / "compose"
    made = {str(Path(one["file"])) for one in COMPOSE["configs"].values()}
    assert {path.name for path in place.iterdir() if path.is_file()} == made | {"compose.yaml"}
    for name, service in COMPOSE["services"].items():
        things = [*service.get("configs", ()), *service.get("secrets", ())]
        wanted = {one if isinstance(one, str) else one["source"] for one in things}
        assert wanted <= {*COMPOSE["configs"], *COMPOSE["secrets"]}, name
        assert {volume.partition(":")[0] for volume in service.get("volumes", ())} <= {*COMPOSE["volumes"]}
        assert "healthcheck" in service, name
    (home_file,) = [one["target"] for one in COMPOSE["services"]["server"]["configs"]]
    assert home_file == f"{config.DEFAULT_HOME}/{config.FILE_NAME}"


def test_settings_of_the_compose_file_are_taken(tmp_path):
    (tmp_path / config.FILE_NAME).write_bytes((PACKAGING / "compose/clouduploader.conf").read_bytes())
    found = config.load(home=tmp_path, spool=None, environment={})
    cluster = settings.read(found, host="host-1")
    assert (cluster.broker, cluster.server) == ("amqp://uploads@rabbitmq/clouduploader", "https://server:5452")
    server = server_settings.load(found.server, found.path)
    rabbitmq = (PACKAGING / "compose/rabbitmq.conf").read_text("utf-8")
    assert "default_vhost = clouduploader\n" in rabbitmq
    assert "default_user = uploads\n" in rabbitmq
    secrets = Path(found.tls.ca).parent
    assert COMPOSE["x-clouduploader"]["environment"] == {credentials.VARIABLE: str(secrets)}
    assert {path.name for path in (server.tls_cert, server.tls_key, found.tls.ca)} <= {*COMPOSE["secrets"]}
