"""The files of AWS in a sandbox at its start: settings, credentials, a fast ec2uploadimg."""

import importlib.metadata
import shutil
import sys
from pathlib import Path
from typing import Any

from clouduploader.errors import MissingProgramError
from clouduploader.sandbox.aws.layout import EBS_ENDPOINT, ENDPOINT, AwsLayout

EC2UPLOADIMG = """\
#!{python}
# The real ec2uploadimg; only its waiting times are multiplied by {factor}.
import runpy
import time

_sleep = time.sleep
time.sleep = lambda seconds: _sleep(seconds * {factor})
runpy.run_path({script!r}, run_name="__main__")
"""
PASSED_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EBS")


def prepare(layout: AwsLayout, account: dict[str, Any], wait_factor: float) -> dict[str, Any]:
    """Make all files as at the start.

    Args:
        layout: Where; home and bin are there and empty.
        account: What sandbox.json says of the account.
        wait_factor: What ec2uploadimg's waiting times are multiplied by.

    Returns:
        What sandbox.json says of AWS, the account included.

    Raises:
        MissingProgramError: No ec2uploadimg that this Python could run.
    """
    for directory in (layout.auditor, layout.volumes, layout.instances):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
    _write_home(layout, account)
    _write_credentials(layout.auditor / "credentials", account["auditor"])
    (layout.auditor / "config").write_text(f"[default]\nregion = {account['region']}\n")
    _write_ec2uploadimg(layout.bin / "ec2uploadimg", wait_factor)
    return account | {
        "endpoint": ENDPOINT,
        "ebs_endpoint": EBS_ENDPOINT,
        "volumes": str(layout.volumes),
        "wait_factor": wait_factor,
    }


def target_data(account: dict[str, Any]) -> dict[str, Any]:
    """Return what OBS would send for an upload into the sandbox's region."""
    return {
        "user_id": 7,
        "external_id": account["external_id"],
        "arn": account["role_arn"],
        "region": account["region"],
        "ami_name": "clouduploader-sample",
        "vpc_subnet_id": "",  # OBS's form sends it empty
    }


def _write_home(layout: AwsLayout, account: dict[str, Any]) -> None:
    (layout.home / ".aws").mkdir(mode=0o700)
    _write_credentials(layout.home / ".aws" / "credentials", account["obs"])
    sections = [
        f"[region-{region}]\nami = {ami}\ninstance_type = t2.micro\nuser = ec2-user\n"
        for region, ami in account["helper_amis"].items()
    ]
    (layout.home / ".ec2utils.conf").write_text("\n".join(sections))
    # `worker` and `serve` hand little of their environment on to uploads: not where the AWS is, for there is only one
    settings = f"[worker]\npass_environment = {' '.join(PASSED_VARIABLES)}\n"
    (layout.home / "clouduploader.conf").write_text(settings)


def _write_credentials(path: Path, key: dict[str, str]) -> None:
    path.touch(mode=0o600)
    path.write_text(
        f"[default]\naws_access_key_id = {key['access_key_id']}\naws_secret_access_key = {key['secret_access_key']}\n"
    )


def _write_ec2uploadimg(path: Path, wait_factor: float) -> None:
    path.write_text(EC2UPLOADIMG.format(python=sys.executable, factor=wait_factor, script=str(_installed_script())))
    path.chmod(0o755)


def _installed_script() -> Path:
    files = importlib.metadata.distribution("ec2imgutils").files or []
    for file in files:
        if file.name == "ec2uploadimg":
            return Path(str(file.locate())).resolve()
    found = shutil.which("ec2uploadimg")
    if found is None:
        raise MissingProgramError(
            "ec2imgutils is installed, but its program ec2uploadimg is not to be found",
            hint="pip install --force-reinstall ec2imgutils",
        )
    return Path(found)
