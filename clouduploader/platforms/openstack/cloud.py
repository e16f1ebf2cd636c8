"""The cloud of a target: found by openstacksdk's configuration, entered by keystoneauth's session.

A user's application credential goes to the cloud that the target data name: by a URL, or by a name in `clouds.yaml` in
the home, which nothing of the caller's environment can change. Without one, the caller's own settings serve, as they
do for the `openstack` command: OS_* and clouds.yaml, for uploads by hand.
"""

import re
from collections.abc import Mapping
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
from clouduploader.plugin import Context, JsonValue

if TYPE_CHECKING:
    from keystoneauth1.access import AccessInfoV3
    from openstack.config import OpenStackConfig
    from openstack.config.cloud_region import CloudRegion

CLOUDS_FILE = "clouds.yaml"
"""In the home: the clouds by their names, with `auth_url`, and `cacert` where that is needed."""
SERVICE = "image"
TIMEOUT_SECONDS = 60.0  # of a connection, and until an answer goes on
_SECRET_OPTION = re.compile(r"password|secret|token|passcode")


class Cloud:
    """A cloud, with the rights of one credential. No network before it is used.

    Args:
        config: What openstacksdk has found.
        ctx: Its reporter hides the secrets.
    """

    def __init__(self, config: "CloudRegion", ctx: Context) -> None:
        self._config = config
        self._reporter = ctx.reporter
        auth: Mapping[str, object] = config.config.get("auth") or {}
        for name, value in auth.items():
            if _SECRET_OPTION.search(name):
                self._reporter.hide(str(value))
        self._session = config.get_session()
        self._images: dict[str, Images] = {}
        self.auth_url = str(auth.get("auth_url"))

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
                endpoint_override=self._config.get_endpoint(SERVICE) if region == self._config.region_name else None,
                service_type=SERVICE,
                interface=self._config.get_interface(SERVICE),
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
        return url

    def regions(self) -> list[str]:
        """List the regions with an image service, as the login has told."""
        catalog = self.access().service_catalog
        endpoints = catalog.get_endpoints(service_type=SERVICE, interface=self._config.get_interface(SERVICE))
        return sorted({str(endpoint["region"]) for endpoint in endpoints.get(SERVICE, []) if endpoint})


def connect(ctx: Context, home: Path, default_cloud: str) -> Cloud:
    """Find the cloud of a context; see the module.

    Args:
        ctx: The fields of an account are used.
        home: Of clouduploader.
        default_cloud: Its name where target data with a credential name none.

    Raises:
        Exception: openstacksdk's, for `translate`.
    """
    return Cloud(_config(ctx.targetdata, ctx.region, home, default_cloud), ctx)


def clouds_of_home(home: Path) -> dict[str, str]:
    """List the clouds that clouds.yaml in the home has: their Keystone's URLs by names.

    Raises:
        ConfigError: The file can't be read, or is damaged.
    """
    import yaml

    path = home / CLOUDS_FILE
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
        return {str(name): str(one["auth"]["auth_url"]) for name, one in found["clouds"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ConfigError(f"{path} can't be read: {' '.join(str(exc).split())}") from exc
    except (LookupError, TypeError, AttributeError):
        hint = "It has clouds, each with a name, and in it auth with an auth_url."
        raise ConfigError(f"{path} is no list of clouds", hint=hint) from None


def _config(targetdata: Mapping[str, JsonValue], region: str, home: Path, default_cloud: str) -> "CloudRegion":
    auth_url = targetdata.get("auth_url")
    cloud = str(targetdata.get("cloud") or "") or None
    options: dict[str, Any] = {"api_timeout": TIMEOUT_SECONDS}
    if region:
        options["region_name"] = region
    auth = {"auth_url": _versioned(str(auth_url))} if auth_url else {}
    if not targetdata.get("application_credential_id"):
        return _loader(None).get_one(cloud=cloud, auth=auth, **options)
    auth |= {name: str(targetdata[name]) for name in ("application_credential_id", "application_credential_secret")}
    clouds_of_home(home)  # the SDK passes over a damaged file without a word
    if not auth_url:
        cloud = cloud or default_cloud
    return _loader(home).get_one(cloud=cloud, auth_type="v3applicationcredential", auth=auth, **options)


def _loader(home: Path | None) -> "OpenStackConfig":
    """Make a reader of a home's clouds.yaml, or of what the caller's environment has."""
    import openstack.config

    if home is None:
        return openstack.config.OpenStackConfig(app_name="clouduploader")
    return openstack.config.OpenStackConfig(
        app_name="clouduploader",
        config_files=[str(home / CLOUDS_FILE)],
        secure_files=[],
        vendor_files=[],
        load_envvars=False,
    )


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
    import openstack.exceptions

    match exc:
        case keystone.HttpError():
            error = http_error(exc.http_status, subject=subject, message=str(exc.message))
            if isinstance(error, CredentialsError):
                error.hint = "Is the application credential of this cloud, not expired, and its secret right?"
            return error
        case keystone.SSLError() if "CERTIFICATE_VERIFY_FAILED" in str(exc):  # others come of a cut connection
            return PlatformReplyError(
                f"{subject}: {_first_line(exc)}", hint=f"A CA of your own is named by cacert in {CLOUDS_FILE}."
            )
        case keystone.ConnectionError() | keystone.DiscoveryFailure():
            return NetworkError(f"{subject}: {_first_line(exc)}")
        case openstack.exceptions.ConfigException() | keystone.NoMatchingPlugin():
            return ConfigError(f"OpenStack's settings: {' '.join(str(exc).split())}")
        case keystone.MissingRequiredOptions() | keystone.MissingAuthPlugin() | keystone.AuthPluginException():
            hint = "Name a cloud of your clouds.yaml, or set OS_CLOUD; a job needs an application credential."
            return CredentialsError(f"no way into the cloud: {_first_line(exc)}", hint=hint)
        case keystone.ClientException() | openstack.exceptions.SDKException():
            return PlatformReplyError(f"{subject}: {_first_line(exc)}")
    return None


def _first_line(exc: Exception) -> str:
    return str(exc).strip().partition("\n")[0] or type(exc).__name__
