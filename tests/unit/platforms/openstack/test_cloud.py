import contextlib

import keystoneauth1.exceptions
import pytest
from fakes.openstack_cloud import fault
from fakes.scripted_server import ScriptedServer, ok

from clouduploader.errors import (
    ConfigError,
    CredentialsError,
    NetworkError,
    PlatformReplyError,
    TargetDataError,
    TransientError,
)
from clouduploader.platforms.openstack import OpenStack, fields
from clouduploader.platforms.openstack import cloud as openstack_cloud
from clouduploader.platforms.openstack.cloud import CloudOfHome
from clouduploader.plugin import PlatformContext
from clouduploader.plugin.testing import RecordingReporter

YAML = """
clouds:
  mine:
    auth: {{auth_url: "{url}/identity/v3"}}
    interface: public
  other: {{auth: {{auth_url: "https://other.invalid/v3"}}}}
"""


@pytest.fixture
def home(tmp_path, cloud):
    """A home with a clouds.yaml."""
    (tmp_path / "clouds.yaml").write_text(YAML.format(url=cloud.url))
    return tmp_path


@pytest.fixture
def own_settings(tmp_path, monkeypatch, cloud):
    """Return a function that makes the settings of a person: variables, and a clouds.yaml."""

    def make(yaml="", **variables):
        person = tmp_path / "person"
        person.mkdir()
        (person / "clouds.yaml").write_text(yaml)
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(person / "clouds.yaml"))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return make


def roles(ctx):
    return ctx.client.access().role_names


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("named", [{"cloud": "mine"}, {"settings": {"cloud": "mine"}}])
def test_cloud_is_that_of_the_home_s_file(make_context, named):
    assert roles(make_context(auth_url=None, **named)) == ["reader", "member"]


@pytest.mark.usefixtures("home")
def test_cloud_of_the_target_data_goes_before_that_of_the_settings(make_context):
    assert roles(make_context(auth_url=None, cloud="mine", settings={"cloud": "other"})) == ["reader", "member"]
    assert roles(make_context(settings={"cloud": "other"})) == ["reader", "member"]


@pytest.mark.parametrize("ending", ["/identity", "/identity/", "/identity/v3", "/identity/v3/"])
def test_url_may_leave_out_the_version(make_context, cloud, ending):
    assert roles(make_context(auth_url=f"{cloud.url}{ending}")) == ["reader", "member"]


@pytest.mark.usefixtures("home")
def test_caller_s_environment_does_not_change_where_a_credential_goes(make_context, own_settings):
    own_settings(
        "clouds: {mine: {auth: {auth_url: 'https://evil.invalid/v3'}}}",
        OS_AUTH_URL="https://evil.invalid/v3",
        OS_CLOUD="mine",
    )
    assert roles(make_context(auth_url=None, cloud="mine")) == ["reader", "member"]
    assert roles(make_context()) == ["reader", "member"]


def test_own_settings_serve_without_a_credential(make_context, own_settings, cloud):
    none = {"auth_url": None, "application_credential_id": None, "application_credential_secret": None}
    own_settings(
        f"""
        clouds:
          mine:
            auth_type: v3applicationcredential
            auth:
              auth_url: "{cloud.url}/identity/v3"
              application_credential_id: "{cloud.CREDENTIAL["id"]}"
              application_credential_secret: "{cloud.CREDENTIAL["secret"]}"
        """
    )
    record = RecordingReporter()
    assert roles(make_context(cloud="mine", record=record, **none)) == ["reader", "member"]
    assert cloud.CREDENTIAL["secret"] in record.secrets


def test_own_variables_serve_too(make_context, own_settings, cloud):
    own_settings(
        OS_AUTH_TYPE="v3applicationcredential",
        OS_AUTH_URL=f"{cloud.url}/identity/v3",
        OS_APPLICATION_CREDENTIAL_ID=cloud.CREDENTIAL["id"],
        OS_APPLICATION_CREDENTIAL_SECRET=cloud.CREDENTIAL["secret"],
    )
    none = {"auth_url": None, "application_credential_id": None, "application_credential_secret": None}
    assert roles(make_context(**none)) == ["reader", "member"]


def test_region_is_that_of_the_person_s_settings(own_settings, tmp_path):
    own_settings("clouds: {mine: {auth: {auth_url: 'https://a'}, region_name: R1}, b: {auth: {auth_url: 'https://b'}}}")

    def default(name="region", **environment):
        context = PlatformContext(home=tmp_path, settings={}, environment=environment)
        return OpenStack(context).hints.default(name)

    assert default(OS_CLOUD="mine") == "R1"
    assert default(OS_CLOUD="mine", OS_REGION_NAME="R2") == "R2"
    assert (default(), default("cloud", OS_CLOUD="mine"), default(OS_CLOUD="b")) == (None, None, None)
    with pytest.raises(ConfigError, match="nothing"):
        default(OS_CLOUD="nothing")


def test_no_settings_at_all_are_told(make_context, own_settings):
    own_settings()
    none = {"auth_url": None, "application_credential_id": None, "application_credential_secret": None}
    with pytest.raises((ConfigError, CredentialsError)) as caught:
        roles(make_context(**none))
    assert "\n" not in caught.value.message


@pytest.mark.usefixtures("home")
def test_cloud_that_there_is_not_is_told(make_context):
    with pytest.raises(ConfigError, match="there is no cloud 'nothing' in "):
        roles(make_context(auth_url=None, cloud="nothing"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"clouds: [", "can't be read"),
        (b"\xff", "can't be read"),
        (b"", "is no list of clouds"),
        (b"clouds: {a: {}}", "is no list of clouds"),
        (b"clouds: [a]", "is no list of clouds"),
    ],
)
def test_damaged_file_is_told(make_context, home, text, words):
    (home / "clouds.yaml").write_bytes(text)
    with pytest.raises(ConfigError, match=words) as caught:
        roles(make_context(auth_url=None, cloud="mine"))
    assert "\n" not in caught.value.message


def test_clouds_of_the_home_are_read(home, tmp_path):
    (home / "clouds.yaml").write_text(
        "clouds: {a: {auth: {auth_url: 'https://a'}, cacert: /a.pem, interface: internal}, "
        "b: {auth: {auth_url: 'https://b'}, verify: false, image_endpoint_override: 'https://c'}}"
    )
    assert openstack_cloud.clouds_of_home(home) == {
        "a": CloudOfHome("https://a", "/a.pem", "internal"),
        "b": CloudOfHome("https://b", verify=False, image_url="https://c"),
    }
    assert openstack_cloud.clouds_of_home(tmp_path / "empty") == {}


def test_token_is_hidden(make_context, cloud):
    record = RecordingReporter()
    roles(make_context(record=record))
    assert cloud.tokens <= set(record.secrets)


def test_region_without_images_is_told_with_those_that_have_some(make_context):
    with pytest.raises(TargetDataError) as caught:
        make_context().client.images("Nowhere")
    assert caught.value.hint == "It has one in: RegionOne, RegionTwo."


@pytest.mark.parametrize("path", [".*/auth/tokens", "/image/.*"])
def test_neither_secret_nor_token_goes_where_a_redirection_leads(make_context, cloud, path):
    with contextlib.closing(ScriptedServer([ok(b"{}")])) as other:
        cloud.faults += [fault(method, path, redirect=f"{other.url}/x") for method in ("GET", "POST")]
        ctx = make_context()
        with pytest.raises(PlatformReplyError), ctx.translated("the cloud"):
            list(ctx.client.images("RegionOne").find())
    assert other.requests == []


def test_service_s_own_netrc_is_for_no_user_s_cloud(make_context, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login service password of-the-service")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with contextlib.closing(ScriptedServer([ok(b"{}")])) as server:
        ctx = make_context(auth_url=server.url)
        with pytest.raises(PlatformReplyError), ctx.translated("the cloud"):
            ctx.client.access()
    assert "Authorization" not in server.requests[0].headers


@pytest.mark.parametrize("ending", ["", "/", "/v2", "/v2/"])
def test_url_of_the_image_service_may_have_the_version(make_context, cloud, home, ending):
    url = f"{cloud.url}/image/RegionTwo{ending}"
    (home / "clouds.yaml").write_text(
        YAML.format(url=cloud.url).replace("interface: public", f"image_endpoint_override: {url}")
    )
    ctx = make_context(auth_url=None, cloud="mine")
    assert list(ctx.client.images("RegionOne").find()) == []
    assert cloud.calls[-1] == ("GET", "/image/RegionTwo/v2/images")


@pytest.mark.parametrize(
    ("raised", "ours"),
    [
        (keystoneauth1.exceptions.Unauthorized("no"), CredentialsError),
        (keystoneauth1.exceptions.NotFound("Could not find Application Credential: 1."), CredentialsError),
        (keystoneauth1.exceptions.ServiceUnavailable("no"), TransientError),
        (keystoneauth1.exceptions.ConnectFailure("no"), NetworkError),
        (keystoneauth1.exceptions.ConnectTimeout("no"), NetworkError),
        (keystoneauth1.exceptions.UnknownConnectionError("no", OSError()), NetworkError),
        (keystoneauth1.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] no"), PlatformReplyError),
        (keystoneauth1.exceptions.SSLError("EOF occurred in violation of protocol"), NetworkError),
        (keystoneauth1.exceptions.NoMatchingPlugin("odd"), ConfigError),
        (keystoneauth1.exceptions.MissingRequiredOptions([]), CredentialsError),
        (keystoneauth1.exceptions.InvalidResponse("no"), PlatformReplyError),
    ],
)
def test_error_of_the_sdk_is_translated(raised, ours):
    found = openstack_cloud.translate(raised, "the subject")
    assert type(found) is ours
    assert "\n" not in found.message


def test_error_of_others_is_not_translated():
    assert openstack_cloud.translate(OSError(), "x") is None


def test_answer_without_a_limit_is_refused(make_context, monkeypatch):
    monkeypatch.setattr(openstack_cloud, "MAX_ANSWER_BYTES", 1000)
    server = ScriptedServer([ok(bytes(1001), "X-Subject-Token: t")])
    with contextlib.closing(server), pytest.raises(PlatformReplyError, match="has more than 1000 bytes"):
        roles(make_context(auth_url=f"{server.url}/v3"))


def test_catalog_of_a_host_that_a_user_names_leads_to_https_alone(make_context, tmp_path):
    ctx = make_context()
    assert openstack_cloud.connect(ctx, tmp_path, "").images("RegionOne")
    with pytest.raises(TargetDataError, match="an image service that is not reached by https"):
        openstack_cloud.connect(ctx, tmp_path, "", takes=fields.is_of_https).images("RegionOne")
