"""What a command in the sandbox gets from its environment."""

from pathlib import Path

from clouduploader.sandbox import layout

PLACE = layout.Layout(Path("/sandbox"))


def test_environment_loses_other_accounts_and_the_ssh_agent():
    strange = {"AWS_PROFILE": "x", "AWS_ACCESS_KEY_ID": "x", "SSH_AUTH_SOCK": "x", "LANG": "C.UTF-8"}
    made = layout.environment(PLACE, strange)
    assert made["LANG"] == "C.UTF-8"
    assert "x" not in made.values()


def test_environment_names_the_sandbox_and_finds_its_ec2uploadimg_first():
    made = layout.environment(PLACE, {"PATH": "/usr/bin"})
    assert made["CLOUDUPLOADER_SANDBOX"] == "/sandbox"
    assert made["PATH"].split(":")[0] == "/sandbox/bin"
    assert made["PATH"].split(":")[-1] == "/usr/bin"
