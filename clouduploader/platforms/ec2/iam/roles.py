"""The user's role as something to be run: a CloudFormation template, and commands for `aws`."""

import json
import shlex
from collections.abc import Mapping

from clouduploader.platforms.ec2.iam.policies import Document

NAME = "clouduploader"
"""What the commands call the role; the user may choose another. CloudFormation makes up a name of its own."""
DESCRIPTION = "Lets a build service upload images (clouduploader)"  # IAM API, CreateRole: at most 1000 characters


def template(trust: Document, permissions: Mapping[str, Document]) -> str:
    """Make a CloudFormation template of the role; its output RoleArn is what the service must be told."""
    properties = {
        "Description": DESCRIPTION,
        "AssumeRolePolicyDocument": trust,
        "Policies": [{"PolicyName": name, "PolicyDocument": document} for name, document in permissions.items()],
    }
    document = {
        "AWSTemplateFormatVersion": "2010-09-09",  # the only one there is
        "Description": DESCRIPTION,
        "Resources": {"Role": {"Type": "AWS::IAM::Role", "Properties": properties}},
        "Outputs": {"RoleArn": {"Value": {"Fn::GetAtt": ["Role", "Arn"]}}},
    }
    return json.dumps(document, indent=2)


def commands(trust: Document, permissions: Mapping[str, Document]) -> str:
    """Make commands of the aws program for a shell, a line each; the last one prints the role's ARN."""
    lines = [
        [
            *("create-role", "--role-name", NAME, "--description", DESCRIPTION),
            *("--assume-role-policy-document", json.dumps(trust)),
        ]
    ]
    lines += [
        ["put-role-policy", "--role-name", NAME, "--policy-name", name, "--policy-document", json.dumps(document)]
        for name, document in permissions.items()
    ]
    lines += [["get-role", "--role-name", NAME, "--query", "Role.Arn", "--output", "text"]]
    return "\n".join(shlex.join(["aws", "iam", *line]) for line in lines)
