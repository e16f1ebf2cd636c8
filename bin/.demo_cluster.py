"""What bin/demo --cluster runs in the sandbox: RabbitMQ, a server and two hosts, of which one is killed at its work."""

import contextlib
import json
import lzma
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from clouduploader.sandbox.layout import VARIABLE, Layout

RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # of Debian; the one on PATH becomes the user rabbitmq
HOSTS = ("host-1", "host-2")
IMAGES = 4
MIB, BLOCK_BYTES = 1 << 20, 512 << 10
IMAGE_BYTES = 48 * MIB
BLOCKS_PER_SECOND = 5  # of each upload, so that there is time to look on
LEASE_SECONDS = 6
PATIENCE_SECONDS = 180
BROKER_PORT, SERVER_PORT, NAMES_PORT, NODES_PORT = 5672, 5452, 4369, 25672  # the sandbox's network has none of them

children: list[subprocess.Popen[bytes]] = []


def say(text: str) -> None:
    """Tell the reader what happens."""
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()


def show(*command: str) -> None:
    """Run a command in sight of the reader."""
    say(f"$ {shlex.join(command)}")
    if code := subprocess.run(command, check=False).returncode:
        give_up(f"that ended with {code}")


def give_up(text: str) -> None:
    """End with what was wrong."""
    sys.exit(f"bin/demo: {text}")


def answer(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def start(log: Path, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a service as the leader of a process group; it ends with the demo."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    children.append(process)
    return process


def wait_for(what: str, is_there: Callable[[], bool]) -> None:
    """Wait until something is there."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not is_there():
        if time.monotonic() > ends_at:
            give_up(f"in vain waited for {what}")
        time.sleep(0.2)


def is_listening(port: int) -> bool:
    """Tell whether there is a server at a port."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


def start_rabbitmq(place: Path, password: str) -> None:
    """Start RabbitMQ as a plain process, with all that it writes in one directory."""
    place.mkdir()
    settings = place / "rabbitmq.conf"
    settings.touch(0o600)
    settings.write_text(f"default_user = uploads\ndefault_pass = {password}\ndisk_free_limit.absolute = 1MB\n")
    (place / "enabled_plugins").write_text("[].\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_CONFIG_FILE": str(settings),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "enabled_plugins"),
        "RABBITMQ_LOG_BASE": str(place / "log"),
        "RABBITMQ_MNESIA_BASE": str(place / "data"),
        "RABBITMQ_NODENAME": "demo@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(BROKER_PORT),
        "RABBITMQ_DIST_PORT": str(NODES_PORT),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
        "RUNNING_UNDER_SYSTEMD": "true",  # lets the script become the server, and not its parent
    }
    log = place / "rabbitmq.log"
    start(log, "epmd", "-port", str(NAMES_PORT), "-address", "127.0.0.1", environment=environment)
    wait_for("epmd", lambda: is_listening(NAMES_PORT))
    start(log, RABBITMQ, environment=environment)
    wait_for(f"RabbitMQ, see {log}", lambda: is_listening(BROKER_PORT))


def write_secret(path: Path, text: str) -> None:
    """Write a file for its owner alone."""
    path.touch(0o600)
    path.write_text(text)


def make_images(sample: Path, place: Path) -> list[Path]:
    """Make images, each with contents of its own: the sample, and what is random behind it."""
    front = lzma.decompress(sample.read_bytes())
    found = []
    for number in range(1, IMAGES + 1):
        path = place / f"image-{number}.raw"
        path.write_bytes(front + secrets.token_bytes(IMAGE_BYTES - len(front)))
        found.append(path)
    return found


def leases() -> dict[str, dict[str, str]]:
    """Return which host has which job."""
    data = json.loads(answer("clouduploader", "cluster", "status", "--json"))["data"]
    return {lease["job"]: lease for lease in data["leases"]}


def main() -> None:
    """Show it."""
    layout = Layout(Path(os.environ[VARIABLE]))
    described = json.loads(layout.description.read_text())
    place = layout.root / "cluster"
    place.mkdir()
    broker, server = f"amqp://uploads@127.0.0.1:{BROKER_PORT}/", f"http://127.0.0.1:{SERVER_PORT}"
    password = secrets.token_urlsafe()
    socket_path = place / "socket"
    with (layout.home / "clouduploader.conf").open("a") as file:  # which ends with section [worker]
        file.write(
            f"max_jobs_per_user = {IMAGES}\n[server]\nsocket = {socket_path}\n"
            f"[ec2]\nblocks_per_second = {BLOCKS_PER_SECOND}\n"
            f"[cluster]\nbroker = {broker}\nserver = {server}\nlease_seconds = {LEASE_SECONDS}\nbeat_seconds = 1\n"
        )
    os.environ["CLOUDUPLOADER_SPOOL"] = str(place / "spool")
    (place / "spool").mkdir()

    say("Starting RabbitMQ, the server and two hosts")
    start_rabbitmq(place / "rabbitmq", password)
    write_secret(layout.home / "broker-password", password)
    start(place / "server.log", "clouduploader", "serve")
    wait_for(f"the server, see {place}/server.log", socket_path.exists)
    groups = {name: start_host(layout, place, name, password) for name in HOSTS}
    wait_for("the hosts", lambda: answer("clouduploader", "cluster", "status").count("\tready\t") == len(HOSTS))
    show("clouduploader", "cluster", "status")

    earlier = {image["ImageId"] for image in images_in_the_cloud(described["region"])}
    images = make_images(layout.sample, place)
    names = []
    for path in images:
        command = ["clouduploader", "--quiet", "submit", "--server", f"unix:{socket_path}", "--method", "ebs-direct"]
        command += ["--region", described["region"], "--name", path.stem, str(path)]
        say(f"$ {shlex.join(command)}")
        names.append(answer(*command))
        sys.stdout.write(f"{names[-1]}\n")
    wait_for("hosts that have all jobs", lambda: len(leases()) == IMAGES)
    time.sleep(LEASE_SECONDS / 2)
    show("clouduploader", "cluster", "status")

    lost = HOSTS[1]
    had = {job: [lease["host"]] for job, lease in leases().items()}
    say(f"Killing {lost} at its work:\n$ kill -9 -{groups[lost].pid}")
    os.killpg(groups[lost].pid, signal.SIGKILL)

    def is_done() -> bool:
        for job, lease in leases().items():
            if had[job][-1] != lease["host"]:
                had[job].append(lease["host"])
                say(f"job {job} goes on at {lease['host']}, attempt {lease['attempt']}")
        return all((place / "spool/done" / name).exists() for name in names)

    wait_for("the end of all jobs", is_done)
    show("clouduploader", "list")
    show("clouduploader", "log", next(job for job in names if len(had[job]) > 1))
    show("clouduploader", "cluster", "status")
    say("The images in the cloud, and who uploaded them:")
    found = [image for image in images_in_the_cloud(described["region"]) if image["ImageId"] not in earlier]
    for name, path in zip(names, images, strict=True):
        ids = [image["ImageId"] for image in found if image["Name"] == path.stem]
        if len(ids) != 1:
            give_up(f"there are {len(ids)} images {path.stem}")
        sys.stdout.write(f"  {ids[0]}  {path.stem}, job {name}, by {', then by '.join(had[name])}\n")
    if len(found) != IMAGES:
        give_up(f"there are {len(found)} images, not {IMAGES}")


def start_host(layout: Layout, place: Path, name: str, password: str) -> subprocess.Popen[bytes]:
    """Start an upload host, with a home and a spool of its own."""
    home = place / name / "home"
    shutil.copytree(layout.home / ".aws", home / ".aws")
    shutil.copyfile(layout.home / "clouduploader.conf", home / "clouduploader.conf")
    write_secret(home / "broker-password", password)
    write_secret(home / "token", answer("clouduploader", "token", "create", "--user", name, "--role", "worker"))
    own = {"CLOUDUPLOADER_HOME": str(home), "CLOUDUPLOADER_SPOOL": str(place / name / "spool")}
    command = ("clouduploader", "worker", "--cluster", "--host", name)
    return start(place / f"{name}.log", *command, environment=os.environ | own)


def images_in_the_cloud(region: str) -> list[dict[str, str]]:
    """Ask the cloud for all its images, as the auditor."""
    import botocore.session

    client = botocore.session.get_session().create_client("ec2", region_name=region)
    return list(client.describe_images(Owners=["self"])["Images"])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        for child in reversed(children):
            child.kill()
            child.wait()
