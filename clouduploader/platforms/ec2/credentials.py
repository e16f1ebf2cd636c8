"""Who we are in AWS, and temporary credentials for the user's role.

With a role, the keys in `HOME/.aws` ask for it; where there are none, boto3's usual chain does
(environment, profiles, SSO, instance role). Without a role that chain is used as it is: an admin who
uploads into his own account.
"""

import configparser
import datetime
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clouduploader.errors import ConfigError, CredentialsError
from clouduploader.platform import JsonValue, Reporter
from clouduploader.platforms.ec2 import sts
from clouduploader.platforms.ec2.settings import Settings
from clouduploader.platforms.ec2.sigv4 import Keys

if TYPE_CHECKING:
    import botocore.session

SESSION_NAME_LENGTH = 64  # RoleSessionName, API reference of AssumeRole
_NOT_IN_SESSION_NAME = re.compile(r"[^A-Za-z0-9_=,.@-]+")  # its pattern there is [\w+=,.@-]*
_PLAIN_REGION = re.compile(r"(?!us-iso)[a-z]{2}(-[a-z]+)+-[0-9]+")
_KEY = re.compile(r"[!-~]*")  # what can stand in a header; a wrapped line or a curly quote can't
_BOTO_ONLY = frozenset({"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "AWS_USE_FIPS_ENDPOINT"})
"""Environment variables that boto3 understands and our own request does not."""


def session_name(*, user: str, job_name: str | None) -> str:
    """Name a session so that CloudTrail shows user and job: `obs-42-tom`."""
    words = ["obs", *([job_name] if job_name else []), user]
    name = _NOT_IN_SESSION_NAME.sub("-", "-".join(words))
    return name[:SESSION_NAME_LENGTH].rstrip("-")


class Account:
    """The way into the account that an image is uploaded to.

    Args:
        home: Home of clouduploader.
        settings: See Settings.
        environment: Of this process.
        targetdata: The keys `arn`, `external_id` and `region` are used.
        session: The session's name, see `session_name`.
        reporter: Told of each call if verbose; the secrets are hidden there.
    """

    def __init__(
        self,
        *,
        home: Path,
        settings: Settings,
        environment: Mapping[str, str],
        targetdata: Mapping[str, JsonValue],
        session: str,
        reporter: Reporter,
    ) -> None:
        self._home = home
        self._settings = settings
        self._environment = environment
        self._session = session
        self._reporter = reporter
        self.region = str(targetdata["region"])
        self.role_arn = str(targetdata.get("arn", ""))
        self._external_id = str(targetdata.get("external_id", ""))

    def fresh_keys(self) -> Keys:
        """Get credentials for the account, with their whole life before them. Uses the network.

        Raises:
            CredentialsError: There are none, or AWS does not accept them.
            ClouduploaderError: See `refusals.translate`.
        """
        keys = self._assume() if self.role_arn else self._own()
        self._reporter.hide(keys.secret_access_key)
        self._reporter.hide(keys.session_token or "")
        return keys

    def _assume(self) -> Keys:
        parameters = {
            "RoleArn": self.role_arn,
            "RoleSessionName": self._session,
            "DurationSeconds": str(self._settings.session_seconds),
        }
        if self._external_id:
            parameters["ExternalId"] = self._external_id
        region = self._settings.sts_region or self.region
        static = static_keys(self._home, self._settings.profile)
        if static and _PLAIN_REGION.fullmatch(region) and not _BOTO_ONLY & self._environment.keys():
            self._reporter.hide(static.secret_access_key)
            self._reporter.hide(static.session_token or "")
            return sts.assume_role(
                keys=static,
                region=region,
                parameters=parameters,
                environment=self._environment,
                on_call=self._reporter.detail,
                subject=f"role {self.role_arn}",
            )
        return self._assume_by_boto(region, parameters)

    def _assume_by_boto(self, region: str, parameters: Mapping[str, str]) -> Keys:
        from clouduploader.platforms.ec2 import api

        client = api.client("sts", region=region, session=self._base_session, reporter=self._reporter)
        with api.translated(f"role {self.role_arn}"):
            answer = client.assume_role(**{**parameters, "DurationSeconds": self._settings.session_seconds})
        given = answer["Credentials"]
        return Keys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], given["Expiration"])

    def _own(self) -> Keys:
        import botocore.exceptions

        try:
            found = self._base_session.get_credentials()
            frozen = found and found.get_frozen_credentials()
        except botocore.exceptions.BotoCoreError as exc:
            raise CredentialsError(f"the AWS credentials can't be had: {exc}") from exc
        if not frozen:
            raise CredentialsError(
                "there are no AWS credentials",
                hint="Give a role (--arn, --external-id), or log in as for the aws command.",
            )
        expires: datetime.datetime | None = getattr(found, "_expiry_time", None)
        return Keys(frozen.access_key, frozen.secret_key, frozen.token, expires)

    @functools.cached_property
    def _base_session(self) -> "botocore.session.Session":
        """Who asks: the home's own credentials where there are some, else boto3's chain."""
        return base_session(self._home, self._settings.profile, is_role_wanted=bool(self.role_arn))

    def client(self, service: str, keys: Keys) -> Any:  # noqa: ANN401 boto3 makes its clients at run time
        """Make a boto3 client that acts with these credentials in the upload's region."""
        from clouduploader.platforms.ec2 import api

        return api.client(service, region=self.region, keys=keys, reporter=self._reporter)


def base_session(home: Path, profile: str, *, is_role_wanted: bool) -> "botocore.session.Session":
    """Make a botocore session that looks for credentials where `credentials` says."""
    import botocore.session

    session = botocore.session.Session()
    if is_role_wanted and (home / ".aws").is_dir():
        session.set_config_variable("credentials_file", str(home / ".aws" / "credentials"))
        session.set_config_variable("config_file", str(home / ".aws" / "config"))
        session.set_config_variable("profile", profile)
    return session


def static_keys(home: Path, profile: str) -> Keys | None:
    """Read keys that simply stand in `HOME/.aws/credentials`.

    Returns:
        None if the file or the section is not there, or the section needs boto3 to understand it.

    Raises:
        ConfigError: The file can't be read or is no INI file.
    """
    path = home / ".aws" / "credentials"
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(f"{path} can't be read: {exc.strerror}", hint="It must belong to this user.") from exc
    except (configparser.Error, UnicodeDecodeError):
        section = None  # the parser's message would show the line, and that holds a secret
    else:
        if not parser.has_section(profile):
            return None
        section = parser[profile]
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    key_id, secret, token = (section and section.get(name) for name in names)
    if section is None or not all(_KEY.fullmatch(word or "") for word in (key_id, secret, token)):
        raise ConfigError(f"{path} is not a file of AWS credentials")
    return Keys(key_id, secret, token or None) if key_id and secret else None
