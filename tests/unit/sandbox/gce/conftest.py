"""A Google's cloud, and a client of it."""

import json

import pytest
from fakes.google_cloud import GoogleCloud
from google.auth.transport.requests import AuthorizedSession
from google.oauth2 import service_account

SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class GoogleClient:
    """Asks as the service account.

    Args:
        google: See GoogleCloud.
        scopes: What the token is for.
    """

    def __init__(self, google, scopes=(SCOPE,)):
        info = json.loads(google.key) | {"token_uri": f"{google.api_url.replace('{service}', 'oauth2')}/token"}
        credentials = service_account.Credentials.from_service_account_info(info, scopes=scopes)
        self._session, self._api_url = AuthorizedSession(credentials), google.api_url

    def ask(self, method, service, path, **options):
        url = path if path.startswith("http") else f"{self._api_url.replace('{service}', service)}/{path}"
        return self._session.request(method, url, allow_redirects=False, **options)


def refusal(answer):
    """The status and Google's word of a refusal."""
    return answer.status_code, answer.json()["error"]["errors"][0]["reason"]


@pytest.fixture(scope="session")
def running_google():
    cloud = GoogleCloud()
    yield cloud
    cloud.close()


@pytest.fixture
def google(running_google):
    running_google.reset()
    running_google.site.compute.alignment_bytes = 1 << 20
    return running_google


@pytest.fixture
def client(google):
    return GoogleClient(google)
