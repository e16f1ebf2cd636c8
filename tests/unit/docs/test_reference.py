"""The reference against the program, where its pages are not made from it."""

import json
import re
from pathlib import Path

import pytest

from clouduploader import platforms
from clouduploader.cli import program
from clouduploader.model import job_xml
from clouduploader.model.disk import Compression, Image
from clouduploader.platforms.ec2 import rights
from clouduploader.platforms.ec2.ec2uploadimg import command as ec2uploadimg_command
from clouduploader.platforms.gce import rights as gce_rights
from clouduploader.platforms.openstack import accounts as openstack_accounts
from clouduploader.plugin import (
    BytesMoved,
    CloudObject,
    ImageFound,
    ObjectCreated,
    ObjectRemoved,
    PhaseStarted,
    Shortfall,
)
from clouduploader.server import job_changes, service
from clouduploader.server.network import connections, tls
from clouduploader.server.receive import places
from clouduploader.store import config, event_file, target_data

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
THING = CloudObject("image", "ami-1", "here")


def page(name):
    return (REFERENCE / f"{name}.rst").read_text("utf-8")


def generated(name, what):
    """What a page has made from the program of one kind."""
    return re.findall(rf"^\.\. from-program:: {what} (\S+)$", page(name), re.MULTILINE)


def test_every_command_has_a_page():
    names = {path.stem for path in (REFERENCE / "commands").glob("*.rst")} - {"index"}
    shown = {name: generated(f"commands/{name}", "command") for name in names}
    assert shown == {name: [name] for name in program.COMMANDS}


def test_every_platform_has_its_target_data_listed():
    assert sorted(generated("target-data", "target-data")) == sorted(platforms.BUILT_INS)


def test_every_section_of_the_settings_is_described():
    own = {config.SECTION, config.SERVER_SECTION, config.WORKER_SECTION, config.CLUSTER_SECTION}
    sections = own.union(platforms.BUILT_INS)
    assert sorted(generated("settings", "settings")) == sorted(sections)


def test_every_policy_is_shown():
    assert sorted(generated("ec2-role", "policy")) == sorted([*rights.GRANTS, rights.BOUNDARY])


def test_every_role_for_google_is_shown():
    assert sorted(generated("gce-roles", "gce-role")) == sorted(["archives", "images", *gce_rights.EXTRAS])
    assert generated("openstack-rules", "openstack-rules") == list(openstack_accounts.EXTRA_RULES)


def documented_events():
    """The keys of each event as the table has them."""
    events, _, _phases = page("events").partition("\nPhases\n")
    rows = re.findall(r"^``([a-z-]+)`` +(.*(?:\n {20}.*)*)", events, re.MULTILINE)
    keys = {name: re.findall(r"``(\w+)``", text) for name, text in rows}
    return keys | {"object-removed": keys["object-created"]}


@pytest.fixture
def written_events(tmp_path):
    """One event of each kind, as an upload writes them."""
    events = event_file.EventFile(tmp_path / "events")
    events.start(job="1", user="tom", target="ec2")
    for event in (
        ImageFound(Image(tmp_path / "1.file", "my.raw", Compression.RAW, 512)),
        PhaseStarted("upload"),
        BytesMoved(512, 512),
        ObjectCreated(THING),
        ObjectRemoved(THING),
    ):
        events(event)
    short = Shortfall("there", "why")
    events.end(outcome="succeeded", result="ami-1", reason=None, exit_code=75, shortfalls=[short])
    return [json.loads(line) for line in (tmp_path / "events").read_text("utf-8").splitlines()]


def test_events_are_written_as_described(written_events):
    written = {event["event"]: event.keys() - {"time", "event"} for event in written_events}
    written["end"] |= written_events[-1]["shortfalls"][0].keys()
    assert {name: set(keys) for name, keys in documented_events().items()} == written


@pytest.mark.parametrize(
    ("target", "place", "others"),
    [
        ("azure", "azure/*.py", set()),
        ("directory", "directory.py", set()),
        ("ec2", "ec2/**/*.py", {"clean up", *(name for _beginning, name in ec2uploadimg_command.PHASES)}),
    ],
)
def test_every_phase_of_a_platform_is_named(target, place, others):
    sources = [path.read_text("utf-8") for path in Path(platforms.__file__).parent.glob(place)]
    told = {name for text in sources for name in re.findall(r"(?:\.phase|PhaseStarted)\(\"(.*?)\"\)", text)}
    row = re.search(rf"^``{target}`` +(.*(?:\n {{20}}.*)*)", page("events"), re.MULTILINE)[1]
    named = re.split(r", (?:then by|and by) ``\S+`` |, |; then ", " ".join(row.split()))
    assert set(named) == told | others


def test_limits_are_those_of_the_server():
    said = " ".join(page("limits").split())
    limits = [
        f"at most {connections.MAX_IDLE:,} - the oldest; each after {service.HEADER_SECONDS:.0f} seconds",
        f"{tls.CONNECTION_BYTES >> 10} KiB of :confval:`max_memory` for each - the oldest; each after "
        f"{service.HEADER_SECONDS:.0f} seconds, or {tls.HANDSHAKE_SECONDS:.0f} without a handshake",
        f"less than {places.MIN_RATE >> 10} KiB a second",
        f"{service.MAX_LINE_BYTES >> 10} KiB for the first line, {service.MAX_HEADERS} headers of "
        f"{service.MAX_FIELD_BYTES} bytes",
        f"{job_changes.MAX_SKELETON_BYTES / (1 << 20):.1f} MiB, {job_xml.MAX_MARKS:,} tags, "
        f"{target_data.MAX_SIZE_BYTES >> 20} MiB of target data",
    ]
    assert [limit for limit in limits if limit not in said] == []
