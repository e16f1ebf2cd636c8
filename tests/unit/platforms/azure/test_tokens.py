import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError

from clouduploader.errors import CredentialsError, TransientError
from clouduploader.platforms.azure import sdk
from clouduploader.plugin import tokens


@pytest.fixture
def make_context(make_uploader):
    """Makes contexts."""
    return lambda **values: make_uploader(**values).context()


@pytest.fixture
def ctx(make_context):
    return make_context()


@pytest.fixture
def source(cloud, ctx):
    return ctx.client._tokens


def scope(cloud):
    return f"{cloud.url}/.default"


def test_token_is_kept_for_its_service(cloud, source):
    first = source.get(scope(cloud))
    assert source.get(scope(cloud)) == first
    assert source.get("https://storage.azure.com/.default") != first
    assert cloud.actions().count("Token") == 2


def test_token_that_is_about_to_expire_is_replaced(cloud, ctx, source):
    first = source.get(scope(cloud))
    ctx.clock.now += 3599 - tokens.RENEWAL_SECONDS - 1
    assert source.get(scope(cloud)) == first
    ctx.clock.now += 2
    assert source.get(scope(cloud)) != first


def test_token_that_is_refused_has_expired_if_it_was_taken_before(cloud, source):
    first = source.get(scope(cloud))
    assert not source.refused(first)
    second = source.get(scope(cloud))
    source.accepted(second)
    assert source.refused(second)
    assert source.get(scope(cloud)) not in (first, second)


def test_refusal_of_the_application_is_for_good(cloud, make_context):
    ctx = make_context(application_id="99999999-9999-9999-9999-999999999999")
    with pytest.raises(CredentialsError, match="AADSTS700016"):
        ctx.client._tokens.get(scope(cloud))


def test_entra_that_is_busy_passes(cloud, source):
    cloud.faults.replace([{"action": "Token", "status": 503}])
    with pytest.raises(TransientError):
        source.get(scope(cloud))


def test_token_is_hidden(cloud, ctx, source):
    text = source.get(scope(cloud))
    assert text in ctx.reporter.secrets


@pytest.mark.parametrize(
    "raised",
    [
        CredentialUnavailableError("Azure CLI not found on path"),
        ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token.\nAttempted credentials:\n\tEnv"),
    ],
)
def test_person_without_credentials_is_told_to_log_in(raised):
    found = sdk.translate(raised, "the subject")
    assert type(found) is CredentialsError
    assert "there are no credentials for Azure" in found.message
    assert "\n" not in found.message
    assert "az login" in found.hint
