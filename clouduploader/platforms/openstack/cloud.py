"""The cloud of a target, entered by keystoneauth's session.

A user's application credential goes to the cloud that the target data name: by a URL, or by a name in `clouds.yaml` in
the home, which nothing of the caller's environment can change. Without one, the caller's own settings serve, which
openstacksdk finds as it does for the `openstack` command: OS_* and clouds.yaml, for uploads by hand.
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clouduploader.errors import (
    ClouduploaderError,
    ConfigError,
    CredentialsError,
    NetworkError,
    PlatformReplyError,
    TargetDataError,
    http_error,
)
from clouduploader.platforms.openstack.glance import Images
from clouduploader.plugin import Context, Reporter
from clouduploader.plugin.answers import MAX_ANSWER_BYTES
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:
    import requests
    from keystoneauth1.access import AccessInfoV3
    from keystoneauth1.session import Session

CLOUDS_FILE = "clouds.yaml"
"""In the home: the clouds by their names, with `auth_url`, and `cacert` where that is needed."""
SERVICE = "image"
APP_NAME = "clouduploader"  # in User-Agent
UNKNOWN_CREDENTIAL = "Could not find Application Credential"  # deleted, or another cloud's
TIMEOUT_SECONDS = 60.0  # of a connection, and until an answer goes on
_SECRET_OPTION = re.compile(r"password|secret|token|passcode")


class Cloud:
    """A cloud, with the rights of one credential. No network before it is used.

    Args:
        session: Authenticates requests.
        auth_url: Of Keystone, for the messages.
        interface: Of the image service, as the catalog has it.
        image_urls: URLs of the image service by region that go before those of the catalog.
        takes: Tells whether the image service may be at a URL of the catalog; None for any URL.
        reporter: Hides the tokens.

    Attributes:
        auth_url: As given.
    """

    def __init__(
        self,
        session: "Session",
        *,
        auth_url: str,
        interface: str | list[str] | None,
        image_urls: Mapping[str, str],
        takes: Callable[[str], bool] | None = None,
        reporter: Reporter,
    ) -> None:
        session.redirect = False  # keystoneauth would send secret and token along, to any host
        session.session.hooks["response"].append(_read)
        self._session = session
        self._interface = interface
        self._image_urls = image_urls
        self._takes = takes
        self._reporter = reporter
        self._images: dict[str, Images] = {}
        self.auth_url = auth_url

    def access(self) -> "AccessInfoV3":
        """Log in, or tell what a login has given that still serves: roles, project, access rules."""
        found: Any = self._session.auth
        access: AccessInfoV3 = found.get_access(self._session)
        self._reporter.hide(access.auth_token or "")
        return access

    def project_id(self) -> str:
        """Tell whose images are made.

        Raises:
            CredentialsError: The credential is of no project.
        """
        found = self.access().project_id
        if not found:
            raise CredentialsError(f"{self.auth_url}: the credential is of no project, so that it can have no images")
        return found

    def images(self, region: str) -> Images:
        """Find the image service of a region.

        Raises:
            TargetDataError: The region has none.
        """
        if region not in self._images:
            self._images[region] = Images(self._session, self._url(region), region)
        return self._images[region]

    def _url(self, region: str) -> str:
        import keystoneauth1.exceptions

        try:
            url = self._session.get_endpoint(
                endpoint_override=self._image_urls.get(region),
                service_type=SERVICE,
                interface=self._interface,
                region_name=region,
                skip_discovery=True,  # the version is known, and an answer less can be lost
            )
        except keystoneauth1.exceptions.EndpointNotFound:
            url = None
        if not url:
            names = ", ".join(self.regions()) or "none"
            raise TargetDataError(
                f"the cloud has no image service in the region {region}", hint=f"It has one in: {names}."
            )
        if self._takes and not self._takes(url):
            raise TargetDataError(f"the catalog of {self.auth_url} has an image service that is not reached by https")
        return url

    def regions(self) -> list[str]:
        """List the regions with an image service, as the login has told."""
        catalog = self.access().service_catalog
        endpoints = catalog.get_endpoints(service_type=SERVICE, interface=self._interface)
        return sorted({str(endpoint["region"]) for endpoint in endpoints.get(SERVICE, []) if endpoint})


def _read(answer: "requests.Response", **_options: object) -> None:
    """Read an answer to its end, where requests would read it without a limit.

    Raises:
        PlatformReplyError: It has more than MAX_ANSWER_BYTES.
        Exception: Those of requests.
    """
    data = bytearray()
    for piece in answer.iter_content(1 << 16):
        data += piece
        if len(data) > MAX_ANSWER_BYTES:
            answer.close()
            raise PlatformReplyError(f"an answer of the cloud has more than {MAX_ANSWER_BYTES} bytes")
    answer._content = bytes(data)


def connect(ctx: Context, home: Path, default_cloud: str, *, takes: Callable[[str], bool] | None = None) -> Cloud:
    """Find the cloud of a context; see the module.

    Args:
        ctx: The fields of an account are used.
        home: Of clouduploader.
        default_cloud: Its name where target data with a credential name none.
        takes: See `Cloud`.

    Raises:
        ConfigError: clouds.yaml in the home is damaged, or has no such cloud.
        Exception: keystoneauth's or openstacksdk's, for `translate`.
    """
    if not ctx.targetdata.get("application_credential_id"):
        return _own_cloud(ctx)
    from keystoneauth1.identity import v3
    from keystoneauth1.session import Session

    name = str(ctx.targetdata.get("cloud") or default_cloud)
    url = str(ctx.targetdata.get("auth_url") or "")
    cloud = CloudOfHome(url) if url else _named(clouds_of_home(home), name, home)
    auth_url = _versioned(cloud.auth_url)
    auth = v3.ApplicationCredential(
        auth_url,
        application_credential_id=str(ctx.targetdata["application_credential_id"]),
        application_credential_secret=str(ctx.targetdata["application_credential_secret"]),
    )
    session = Session(auth=auth, verify=cloud.verify, timeout=TIMEOUT_SECONDS, app_name=APP_NAME)
    session.session.auth = lambda request: request  # else requests logs in with this service's ~/.netrc
    return Cloud(
        session,
        auth_url=auth_url,
        interface=cloud.interface,
        image_urls={ctx.region: cloud.image_url} if cloud.image_url else {},
        takes=takes,
        reporter=ctx.reporter,
    )


def own_region(name: str) -> str | None:
    """Tell the region that the caller's own clouds.yaml has for a cloud; None if it has none.

    Raises:
        ConfigError: There is no such cloud.
    """
    import openstack.config

    try:
        config = openstack.config.OpenStackConfig(app_name=APP_NAME).get_one(cloud=name, validate=False)
    except Exception as exc:
        ours = translate(exc, name)
        if ours is None:
            raise
        raise ours from exc
    return str(config.region_name) if config.region_name else None


def _own_cloud(ctx: Context) -> Cloud:
    """Find the cloud of the caller's own settings, as openstacksdk has them: clouds.yaml and OS_*."""
    import openstack.config

    options: dict[str, Any] = {"region_name": ctx.region} if ctx.region else {}
    if url := ctx.targetdata.get("auth_url"):
        options["auth"] = {"auth_url": str(url)}
    config = openstack.config.OpenStackConfig(app_name=APP_NAME).get_one(
        cloud=str(ctx.targetdata.get("cloud") or "") or None, api_timeout=TIMEOUT_SECONDS, **options
    )
    auth: Mapping[str, object] = config.config.get("auth") or {}
    for name, value in auth.items():
        if _SECRET_OPTION.search(name):
            ctx.reporter.hide(str(value))
    url = config.get_endpoint(SERVICE)
    return Cloud(
        config.get_session(),
        auth_url=str(auth.get("auth_url")),
        interface=config.get_interface(SERVICE),
        image_urls={ctx.region: str(url)} if url else {},
        reporter=ctx.reporter,
    )


@frozen()
class CloudOfHome:
    """A cloud that clouds.yaml in the home has, by those of openstacksdk's keys that say where it is.

    Attributes:
        auth_url: Of Keystone.
        verify: Whether, or by which file of CAs, certificates are checked: `verify` and `cacert`.
        interface: Of the catalog.
        image_url: `image_endpoint_override`, or "".
    """

    auth_url: str
    verify: bool | str = True
    interface: str = "public"
    image_url: str = ""


def clouds_of_home(home: Path) -> dict[str, CloudOfHome]:
    """Read the clouds that clouds.yaml in the home has, by names; it need not be there.

    openstacksdk does not read it: it would pass over a damaged file without a word, and takes longer to import than all
    else up to the first request.

    Raises:
        ConfigError: The file can't be read, or is damaged.
    """
    import yaml

    path = home / CLOUDS_FILE
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
        return {
            str(name): CloudOfHome(
                str(one["auth"]["auth_url"]),
                str(one["cacert"]) if one.get("cacert") else bool(one.get("verify", True)),
                str(one.get("interface") or "public"),
                str(one.get("image_endpoint_override") or ""),
            )
            for name, one in found["clouds"].items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ConfigError(f"{path} can't be read: {' '.join(str(exc).split())}") from exc
    except (LookupError, TypeError, AttributeError):
        hint = "It has clouds, each with a name, and in it auth with an auth_url."
        raise ConfigError(f"{path} is no list of clouds", hint=hint) from None


def _named(clouds: Mapping[str, CloudOfHome], name: str, home: Path) -> CloudOfHome:
    if name not in clouds:
        hint = f"It has: {', '.join(clouds) or 'none'}."
        raise ConfigError(f"there is no cloud '{name}' in {home / CLOUDS_FILE}", hint=hint)
    return clouds[name]


def _versioned(url: str) -> str:
    """Complete the URL of Keystone as the catalog has it, for application credentials are of its version 3."""
    base = url.rstrip("/")
    return base if base.endswith("/v3") else f"{base}/v3"


def translate(exc: Exception, subject: str) -> ClouduploaderError | None:
    """Turn an error of openstacksdk, or of keystoneauth below it, into one of ours; None for others.

    Args:
        exc: What was raised.
        subject: What was worked on.
    """
    import keystoneauth1.exceptions as keystone

    sdk = sys.modules.get("openstack.exceptions")  # loaded for a person's own settings only
    if sdk and isinstance(exc, sdk.SDKException):
        return ConfigError(f"OpenStack's settings: {' '.join(str(exc).split())}")
    match exc:
        case keystone.HttpError():
            error = http_error(exc.http_status, subject=subject, message=str(exc.message))
            if UNKNOWN_CREDENTIAL in error.message:  # with 404, and not 401
                error = CredentialsError(error.message)
            if isinstance(error, CredentialsError):
                error.hint = "Is the application credential of this cloud, not expired, and its secret right?"
            return error
        case keystone.SSLError() if "CERTIFICATE_VERIFY_FAILED" in str(exc):  # others come of a cut connection
            return PlatformReplyError(
                f"{subject}: {_first_line(exc)}", hint=f"A CA of your own is named by cacert in {CLOUDS_FILE}."
            )
        case keystone.ConnectionError() | keystone.DiscoveryFailure():
            return NetworkError(f"{subject}: {_first_line(exc)}")
        case keystone.NoMatchingPlugin():
            return ConfigError(f"OpenStack's settings: {' '.join(str(exc).split())}")
        case keystone.MissingRequiredOptions() | keystone.MissingAuthPlugin() | keystone.AuthPluginException():
            hint = "Name a cloud of your clouds.yaml, or set OS_CLOUD; a job needs an application credential."
            return CredentialsError(f"no way into the cloud: {_first_line(exc)}", hint=hint)
        case keystone.InvalidResponse():
            hint = "Is that the URL of Keystone itself? A redirection is not followed."
            return PlatformReplyError(f"{subject}: {_first_line(exc)}", hint=hint)
        case keystone.ClientException():
            return PlatformReplyError(f"{subject}: {_first_line(exc)}")
    return None


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0] or type(exc).__name__
