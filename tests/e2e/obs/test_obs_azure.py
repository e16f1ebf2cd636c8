"""A job for Azure as OBS's frontend makes it, through OBS's server, by OBS's worker and by ours."""

import base64
import json
import re
import subprocess

import pytest
from e2e.azure.conftest import AzureCase, azure, running_azure  # noqa: F401 fixtures

pytestmark = pytest.mark.obs

FILENAME = "appliance-1.0.x86_64.raw.xz"
LINE_LENGTH = 60  # of Ruby's Base64.encode64


def encrypt(public_key, text):
    """What the frontend does with a secret, by a library that is not ours."""
    command = ["openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", public_key, "-pkeyopt", "rsa_padding_mode:pkcs1"]
    found = base64.b64encode(subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout)
    return re.sub(f"(.{{1,{LINE_LENGTH}}})", r"\1\n", found.decode())


def target_data(sandbox):
    """What the frontend sends, in its order."""
    described = sandbox.description
    public_key = sandbox.home / "_pubkey"
    return {
        "user_id": 7,
        "application_id": encrypt(public_key, described["application_id"]),
        "application_key": encrypt(public_key, described["application_key"]),
        "image_name": "image001",
        "subscription": described["tenant"],
        "container": described["container"],
        "storage_account": described["storage_account"],
        "resource_group": described["resource_group"],
    }


@pytest.mark.parametrize("is_ours", [False, True], ids=["OBS's worker", "our worker"])
def test_image_given_to_obs_becomes_an_image_of_azure(make_backend, bin_dir, azure, make_image, is_ours):  # noqa: F811
    environment = azure.environment()
    del environment["PATH"]
    backend = make_backend(bin_dir, prefix=azure.enter, has_worker=not is_ours, **environment)
    if is_ours:
        azure.popen(["clouduploader", "worker"], env=azure.environment(CLOUDUPLOADER_SPOOL=str(backend.spool)))
    image = make_image(FILENAME)
    data = json.dumps(target_data(azure)).encode()

    job = backend.submit(data, image.path.read_bytes(), target="azure", filename=FILENAME)

    result = backend.wait_for(job, "succeeded")["details"]
    assert result.endswith("/images/image001")
    AzureCase(azure).assert_only(result, image.raw)
    log = backend.log(job)
    assert re.search(rb"Upload took: \d\d:\d\d:\d\d$", log.strip()), log
    assert not [text for text in AzureCase(azure).secrets().values() if text.encode() in log]
    assert backend.files() <= {".worker.lock"}
