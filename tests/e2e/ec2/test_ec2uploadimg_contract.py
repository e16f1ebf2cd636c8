"""The platform `ec2` keeps the contract of uploads by ec2uploadimg too, with a double of it and moto's AWS."""

import sys
from pathlib import Path

import boto3
import moto.server
import pytest

from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import PlatformContext
from clouduploader.plugin.testing import Case, UploadContract

DOUBLE = Path(__file__).parents[2] / "fakes" / "ec2uploadimg.py"
REGION = "eu-west-1"
HOME = {
    ".aws/credentials": "[default]\naws_access_key_id = AKIAHOME\naws_secret_access_key = SECRET\n",
    ".ec2utils.conf": f"[region-{REGION}]\nami = {{ami}}\ninstance_type = t2.micro\nuser = ec2-user\n",
}


@pytest.fixture(scope="session")
def aws():
    """An AWS of moto's: its URL, and an AMI that helpers can use."""
    server = moto.server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    images = client(url).describe_images(Owners=["amazon"])["Images"]
    yield url, images[0]["ImageId"]
    server.stop()


def client(url):
    return boto3.client(
        "ec2", region_name=REGION, endpoint_url=url, aws_access_key_id="AKIA", aws_secret_access_key="x"
    )


@pytest.fixture
def case(aws, tmp_path, monkeypatch):
    url, ami = aws
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    ec2 = client(url)
    for left in ec2.describe_images(Owners=["self"])["Images"]:  # the name must be free
        ec2.deregister_image(ImageId=left["ImageId"])
    for name, text in HOME.items():
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(ami=ami))
    script = tmp_path / "ec2uploadimg"
    text = DOUBLE.read_text().replace("{python}", sys.executable)
    script.write_text(text.replace("# AT READ", "time.sleep(1.2)"))  # a look at the open file comes each second
    script.chmod(0o755)
    image = tmp_path / "42.file"
    image.write_bytes(b"0123456789abcdef" * 1000)

    def remaining():
        instances = [item for group in ec2.describe_instances()["Reservations"] for item in group["Instances"]]
        snapshots = ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]  # moto makes one for each of Amazon's AMIs
        return [
            *(item["KeyName"] for item in ec2.describe_key_pairs()["KeyPairs"]),
            *(item["VpcId"] for item in ec2.describe_vpcs()["Vpcs"]),
            *(item["InstanceId"] for item in instances if item["State"]["Name"] != "terminated"),
            *(item["VolumeId"] for item in ec2.describe_volumes()["Volumes"]),
            *(item["ImageId"] for item in ec2.describe_images(Owners=["self"])["Images"]),
            *(item["SnapshotId"] for item in snapshots if "Auto-created" not in item.get("Description", "")),
        ]

    return Case(
        reference="clouduploader.platforms.ec2:Ec2",
        platform_context=PlatformContext(
            home=tmp_path / "home",
            settings={"ec2uploadimg": str(script), "grace_seconds": "0"},
            environment={"AWS_ENDPOINT_URL": url, "PATH": str(Path(sys.executable).parent)},
        ),
        targetdata={
            "region": REGION,
            "ami_name": "my image",
            "arn": "arn:aws:iam::123456789012:role/obs",
            "external_id": "obs-1",
        },
        image=Image(image, "my.raw", Compression.RAW, image.stat().st_size),
        remaining=remaining,
        sabotage=lambda: script.write_text(script.read_text().replace("# AT UPLOAD", "sys.exit('No space left')")),
    )


class TestUploadByEc2uploadimg(UploadContract):
    pass
