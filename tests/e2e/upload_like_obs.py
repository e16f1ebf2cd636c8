"""Uploads a file as OBS's own script did, inside a sandbox: a program for tests.

upload_like_obs.py FILE
"""

import json
import os
import sys
from pathlib import Path

import boto3

described = json.loads((Path(os.environ["CLOUDUPLOADER_SANDBOX"]) / "sandbox.json").read_text())
session = boto3.Session(
    aws_access_key_id=described["obs"]["access_key_id"],
    aws_secret_access_key=described["obs"]["secret_access_key"],
    region_name=described["region"],
)
credentials = session.client("sts").assume_role(
    RoleArn=described["role_arn"], ExternalId=described["external_id"], RoleSessionName="obs"
)["Credentials"]
os.execvp(  # noqa: S606  # the process that is watched is to be ec2uploadimg itself
    "ec2uploadimg",
    [
        "ec2uploadimg",
        "--description='obs uploader'",
        "--machine=x86_64",
        "--name=my-image",
        f"--region={described['region']}",
        f"--secret-key={credentials['SecretAccessKey']}",
        f"--access-id={credentials['AccessKeyId']}",
        f"--session-token={credentials['SessionToken']}",
        "--verbose",
        sys.argv[1],
    ],
)
