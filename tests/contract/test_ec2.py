"""The platform `ec2` keeps the contract by EBS direct, into an account in memory; tests/e2e tries ec2uploadimg."""

import pytest
from fakes.aws_endpoint import Endpoint, granting, identity
from fakes.aws_sdk import REGION, Refusal
from fakes.ec2_cloud import BLOCK, Ec2Cloud, FakeAccount

from clouduploader.model.disk import Compression, Image
from clouduploader.platforms.ec2 import auth
from clouduploader.plugin import PlatformContext
from clouduploader.plugin.testing import AccountsContract, Case, PlatformContract, UploadContract

NO_SNAPSHOT = (
    404,
    '{"message": "There is none."}',
    {"x-amzn-ErrorType": "ResourceNotFoundException", "x-amzn-RequestId": "id-4"},
)


def answer(request):
    """What STS says that knows the service, and lets it into every role; and EBS direct, which has no snapshots."""
    answers = {"AssumeRole": granting(), "GetCallerIdentity": identity()}
    return answers.get(request.form.get("Action"), NO_SNAPSHOT)


@pytest.fixture(scope="module")
def aws():
    """An endpoint of STS and EBS direct."""
    endpoint = Endpoint([answer])
    yield endpoint
    endpoint.close()


@pytest.fixture
def case(aws, tmp_path, monkeypatch):
    cloud = Ec2Cloud()
    for name in ("account", "account_to_check"):
        monkeypatch.setattr(auth, name, lambda *_whose: FakeAccount(cloud))
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    keys = tmp_path / "home" / ".aws" / "credentials"
    keys.parent.mkdir(parents=True)
    keys.write_text("[default]\naws_access_key_id = AKIAHOME\naws_secret_access_key = SECRET\n")
    image = tmp_path / "42.file"
    image.write_bytes(b"0123456789abcdef" * (3 * BLOCK // 16) + b"the rest")
    return Case(
        reference="clouduploader.platforms.ec2:Ec2",
        platform_context=PlatformContext(
            home=tmp_path / "home",
            settings={"method": "ebs-direct"},
            environment={"AWS_ENDPOINT_URL": aws.url},
        ),
        targetdata={"region": REGION, "ami_name": "my image", "arn": FakeAccount.role_arn, "external_id": "obs-1"},
        image=Image(image, "my.raw", Compression.RAW, image.stat().st_size),
        remaining=lambda: cloud.left(REGION),
        sabotage=lambda: cloud.faults.update(CompleteSnapshot=[Refusal("ValidationException")] * 9),
    )


class TestEc2Platform(PlatformContract):
    pass


class TestEc2Accounts(AccountsContract):
    pass


class TestEc2Upload(UploadContract):
    pass
