"""Tables of what the program knows: target data, settings, exit codes, environment, files, metrics, policies."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import prometheus_client.parser
import rst

from clouduploader.cli import manual
from clouduploader.cluster.dispatch.cluster import ClusterCount
from clouduploader.errors import ExitCode
from clouduploader.platforms.azure import rights as azure_rights_of
from clouduploader.platforms.azure import settings as azure_settings
from clouduploader.platforms.ec2 import accounts as ec2_accounts
from clouduploader.platforms.ec2 import rights
from clouduploader.platforms.ec2 import settings as ec2_settings
from clouduploader.platforms.gce import rights as gce_rights
from clouduploader.platforms.openstack import accounts as openstack_accounts
from clouduploader.plugin import fields
from clouduploader.server import access as server_access
from clouduploader.server import job_counter
from clouduploader.server import metrics as server_metrics
from clouduploader.server import settings as server_settings
from clouduploader.store import spool
from clouduploader.uploads import registry
from clouduploader.worker import settings as worker_settings

SAMPLE = Path(__file__).parents[2] / "etc/obs/cloudupload/clouduploader.conf"
LIMITS = {
    "azure": azure_settings.LIMITS,
    "ec2": ec2_settings.LIMITS,
    "server": server_settings.LIMITS,
    "worker": worker_settings.LIMITS,
}


def target_data(target: str) -> Iterator[str]:
    """Say what a platform makes of an image, and list the keys of its target data."""
    platform = registry.load_without_settings(target)
    yield from (rst.inline(platform.description), "")
    rows = []
    for field in platform.fields:
        key = rst.code(field.name) + (" (required)" if field.is_required else "")
        option = rst.code(field.option_name()) if field.option_name() else ""
        value = fields.allowed_in_words(field, None).removeprefix("must be ")
        rows.append((f"{key} {option}", rst.inline(field.description), rst.inline(value)))
    yield from rst.table(("key and option", "what", "value"), rows, (22, 44, 34))


def accounts(target: str) -> Iterator[str]:
    """Say how the service gets into its users' accounts."""
    if kept := registry.load_without_settings(target).accounts:
        yield from (rst.inline(kept.description), "")


def access() -> Iterator[str]:
    """Tell which kind of principal has which right at the server."""
    table = server_access.TABLE
    rows = [(right, *(reaches.get(kind, "") for kind in server_access.Kind)) for right, reaches in table.items()]
    yield from rst.table(("what", *server_access.Kind), rows, (34, *[11] * len(server_access.Kind)))


def settings(section: str) -> Iterator[str]:
    """Describe the settings of a section, as the sample of the file has them."""
    texts = dict(re.findall(r"(?ms)^\[(\w+)\]\n(.*?)(?=^\[|\Z)", SAMPLE.read_text("utf-8")))
    text = texts[section]
    for comment, key, default in re.findall(r"(?m)((?:^##? .*\n)+)^##?(\w+) =(.*)$", text):
        facts = [f"Default: {rst.code(default.strip())}"] if default.strip() else []
        if key in LIMITS.get(section, {}):
            low, high = LIMITS[section][key]
            facts.append(f"{low} to {high}")
        meaning = rst.inline(re.sub("(?m)^##? ", "", comment))
        # Of a name that several sections have, references lead to that of ec2, or else to the first one.
        owner = next(name for name in ("ec2", *texts) if re.search(rf"(?m)^##?{key} =", texts[name]))
        options = [] if owner == section else ["   :no-index:"]
        yield from (f".. confval:: {key}", *options, "", f"   {meaning}", "", f"   {'; '.join(facts)}", "")


def exit_codes() -> Iterator[str]:
    """List the exit codes."""
    yield from rst.table(("code", "meaning"), [(str(int(one)), rst.inline(one.meaning)) for one in ExitCode], (10, 90))


def environment() -> Iterator[str]:
    """Describe the variables that the program reads."""
    for name, meaning in manual.ENVIRONMENT.items():
        yield from (f".. envvar:: {name}", "", f"   {rst.inline(meaning)}", "")


def files() -> Iterator[str]:
    """List the files of the program."""
    rows = [(rst.code(path), rst.inline(meaning)) for path, meaning in manual.files().items()]
    yield from rst.table(("file", "what"), rows, (45, 55))


def metrics() -> Iterator[str]:
    """List the metrics of a server that has answered one request and seen one upload fail."""
    with tempfile.TemporaryDirectory() as directory:
        jobs = spool.Spool(Path(directory))
        cluster = ClusterCount(hosts={"working": 1}, slots=2, leases={"claimed": 1}, messages={"uploads": 0})
        server = server_metrics.Metrics(
            job_counter.JobCounter(jobs), transfers=lambda: 0, free_bytes=lambda: 0, cluster=lambda: cluster
        )
        server.count_request("GET", 200, 0.1)
        server.count_upload("failed", exit_code=ExitCode.PROTOCOL, seconds=1)
        text = server.render(received_bytes=0).decode()
    rows = []
    for metric in prometheus_client.parser.text_string_to_metric_families(text):
        labels = sorted({label for sample in metric.samples for label in sample.labels} - {"le"})
        name = metric.name + "_total" * (metric.type == "counter")
        rows.append((rst.code(name), metric.type, ", ".join(map(rst.code, labels)), rst.inline(metric.documentation)))
    yield from rst.table(("metric", "type", "labels", "what"), rows, (40, 10, 15, 35))


def policy(name: str) -> Iterator[str]:
    """Show a policy of the role that a user makes in AWS, or that of its boundary."""
    document = rights.boundary("aws") if name == rights.BOUNDARY else rights.permissions(name, "aws")
    yield from rst.block(json.dumps(document, indent=2), "json")


def service_policy() -> Iterator[str]:
    """Show the policy of the service's own user, for roles of the path that the scripts give them."""
    document = rights.service([f"arn:aws:iam::*:role{ec2_accounts.PATH}*"])
    yield from rst.block(json.dumps(document, indent=2), "json")


def azure_rights(extra: str = "") -> Iterator[str]:
    """List the actions that a role in Azure must allow: those of all uploads, or of an extra on top."""
    rights = azure_rights_of.EXTRAS[extra] if extra else azure_rights_of.BASE
    kinds = {"Actions": rights.actions, "DataActions": rights.data_actions}
    yield from rst.block(json.dumps({name: list(names) for name, names in kinds.items() if names}, indent=2), "json")


def openstack_rules(extra: str = "") -> Iterator[str]:
    """Show the access rules of an application credential in OpenStack."""
    wanted = openstack_accounts.EXTRA_RULES[extra] if extra else openstack_accounts.UPLOAD_RULES
    lines = ",\n".join(f"  {json.dumps(rule)}" for rule in openstack_accounts.documents(wanted))
    yield from rst.block(f"[\n{lines}\n]", "json")


def gce_role(name: str) -> Iterator[str]:
    """Show the permissions of a role that a user makes in Google's cloud, or what an extra adds to them."""
    permissions = {"archives": gce_rights.ON_BUCKET, "images": gce_rights.ON_PROJECT, **gce_rights.EXTRAS}[name]
    yield from rst.block(json.dumps({"includedPermissions": permissions}, indent=2), "json")


def trust() -> Iterator[str]:
    """Show the trust policy of that role."""
    document = rights.trust(partition="aws", account_id="111122223333", external_id="the external id of the user")
    yield from rst.block(json.dumps(document, indent=2), "json")
