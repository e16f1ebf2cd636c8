import json
import os
import time

import pytest
from google.auth import crypt, jwt

from clouduploader.errors import ConfigError, CredentialsError, TargetDataError
from clouduploader.platforms.gce import Gce, auth
from clouduploader.plugin import PlatformContext
from clouduploader.plugin.fields import SealedText
from clouduploader.sandbox.gce import identity


def changed(google, **members):
    return json.dumps({name: text for name, text in (json.loads(google.key) | members).items() if text is not None})


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"x"', "{}", '{"type": "service_account"}', '{"type": "external_account"}'],
)
def test_what_is_no_key_is_refused_and_not_quoted(text):
    with pytest.raises(TargetDataError, match=r"^credentials are no JSON key of a service account$"):
        auth.read_key(text)


@pytest.mark.parametrize("kind", ["external_account", "authorized_user", "impersonated_service_account", None])
def test_credentials_that_lead_elsewhere_are_refused(google, uploads, kind):
    made = uploads(credentials=changed(google, type=kind))
    with pytest.raises(TargetDataError, match="no JSON key"):
        made.run()
    assert made.platform.problems(made.targetdata) == ["credentials are no JSON key of a service account"]


def test_private_key_that_is_none_is_refused(google, uploads):
    with pytest.raises(TargetDataError, match=r"^the private key in credentials can't be read$"):
        uploads(credentials=changed(google, private_key="secret secret")).run()


def test_encrypted_key_is_no_problem(uploads):
    made = uploads()
    assert made.platform.problems({**made.targetdata, "credentials": SealedText("-----BEGIN PGP MESSAGE-----")}) == []


def test_token_is_asked_for_where_the_settings_say_whatever_the_key_names(google, uploads):
    assert uploads(credentials=changed(google, token_uri="http://127.0.0.1:9/steal")).run().id == "my-image"


@pytest.mark.parametrize("url", ["http://{service}.example.com", "ftp://127.0.0.1", "{service}"])
def test_api_that_others_could_listen_to_is_refused(tmp_path, url):
    with pytest.raises(ConfigError, match="not a URL of https"):
        Gce(PlatformContext(home=tmp_path, settings={"api_url": url}, environment={}))


def test_key_is_masked(google, uploads):
    made = uploads()
    made.run()
    assert json.loads(google.key)["private_key"] in made.record.secrets


def test_project_is_that_of_the_key_unless_given(google, uploads):
    assert uploads().context().client.project == "clouduploader-test"
    assert uploads(project="other-project").context().client.project == "other-project"
    with pytest.raises(TargetDataError, match="project is missing"):
        _ = uploads(credentials=changed(google, project_id=None)).context().client


def test_job_without_credentials_is_refused(uploads):
    with pytest.raises(TargetDataError, match="the user has no Google account configured"):
        uploads(credentials="").run()


def test_upload_by_hand_takes_the_credentials_of_the_person(google, uploads, tmp_path, monkeypatch):
    path = tmp_path / "key.json"
    path.write_text(changed(google, token_uri=f"{google.api_url.replace('{service}', 'oauth2')}/token"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    made = uploads(credentials="")
    made.is_by_hand = True
    assert made.run().id == "my-image"


def test_upload_by_hand_without_credentials_says_what_to_do(uploads, tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("GOOGLE_", "CLOUDSDK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))  # gcloud's directory, with nothing in it
    monkeypatch.setattr("google.auth.compute_engine._metadata.is_on_gce", lambda **_request: False)
    made = uploads(credentials="")
    made.is_by_hand = True
    with pytest.raises(CredentialsError) as caught:
        made.run()
    assert "gcloud auth application-default login" in str(caught.value.hint)


def test_upload_by_hand_takes_the_identity_of_a_workload(google, uploads, tmp_path, monkeypatch):
    signer = crypt.RSASigner.from_service_account_info(json.loads(google.key))
    now = int(time.time())
    claims = {"iss": "https://ci.example.com", "sub": "build", "iat": now, "exp": now + 600}
    token = jwt.encode(signer, claims | {"aud": f"https:{identity.PROVIDER}"}).decode()
    (tmp_path / "token").write_text(token)
    configuration = {
        "type": "external_account",
        "audience": identity.PROVIDER,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{google.api_url.replace('{service}', 'sts')}/v1/token",
        "credential_source": {"file": str(tmp_path / "token")},
    }
    (tmp_path / "configuration.json").write_text(json.dumps(configuration))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "configuration.json"))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "clouduploader-test")
    made = uploads(credentials="")
    made.is_by_hand = True
    assert made.run().id == "my-image"
    assert len(google.calls("sts.token")) == 1
    assert google.calls("token") == []
