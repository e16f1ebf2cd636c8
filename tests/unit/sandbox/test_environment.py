"""The environment variables of a command, and of the server."""

from pathlib import Path

from clouduploader.sandbox import environment
from clouduploader.sandbox.aws.cloud import AwsCloud
from clouduploader.sandbox.layout import Layout

LAYOUT = Layout(Path("/sandbox"))
CLOUD = AwsCloud(regions=("us-east-1",), wait_factor=1)


def test_environment_loses_other_accounts_and_the_ssh_agent():
    strange = {"AWS_PROFILE": "x", "AWS_ACCESS_KEY_ID": "x", "SSH_AUTH_SOCK": "x", "LANG": "C.UTF-8"}
    made = environment.of_command(LAYOUT, CLOUD, strange)
    assert made["LANG"] == "C.UTF-8"
    assert "x" not in made.values()


def test_environment_names_the_sandbox_and_finds_its_ec2uploadimg_first():
    made = environment.of_command(LAYOUT, CLOUD, {"PATH": "/usr/bin"})
    assert made["CLOUDUPLOADER_SANDBOX"] == "/sandbox"
    assert made["PATH"].split(":")[0] == "/sandbox/bin"
    assert made["PATH"].split(":")[-1] == "/usr/bin"


def test_server_gets_the_settings_of_the_cloud_alone():
    made = environment.of_server(CLOUD, {"MOTO_PORT": "1", "AWS_PROFILE": "x", "LANG": "C.UTF-8"})
    assert made == {"LANG": "C.UTF-8", **CLOUD.server_environment}
