"""Who we are in AWS, and temporary credentials for the user's role.

With a role, the keys in `HOME/.aws` ask for it; where there are none, boto3's usual chain does
(environment, profiles, SSO, instance role). Without a role that chain is used as it is: an admin who
uploads into his own account.
"""

import configparser
import contextlib
import dataclasses
import datetime
import functools
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clouduploader.errors import ClouduploaderError, ConfigError, CredentialsError, TargetDataError
from clouduploader.platform import JsonValue, PlatformContext, Reporter, UploadRequest
from clouduploader.platforms.ec2 import sts
from clouduploader.platforms.ec2.settings import Settings
from clouduploader.platforms.ec2.sigv4 import Keys

if TYPE_CHECKING:
    import botocore.session

SESSION_NAME_LENGTH = 64  # RoleSessionName, API reference of AssumeRole
RENEWAL_MARGIN = datetime.timedelta(minutes=5)  # of life left: as long as AWS lets a clock be wrong
RENEWAL_PAUSE = datetime.timedelta(seconds=30)  # between tries while the old ones still serve
_NOT_IN_SESSION_NAME = re.compile(r"[^A-Za-z0-9_=,.@-]+")  # its pattern there is [\w+=,.@-]*
_PLAIN_REGION = re.compile(r"(?!us-iso)[a-z]{2}(-[a-z]+)+-[0-9]+")
_KEY = re.compile(r"[!-~]*")  # what can stand in a header; a wrapped line or a curly quote can't
_BOTO_ONLY = frozenset(
    {
        *("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"),
        *("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
    }
)
"""Environment variables that boto3 understands and our own request does not."""
_BOTO_SETTING = re.compile(
    r"^[ \t]*(use_fips_endpoint|use_dualstack_endpoint|ca_bundle|endpoint_url|services|"
    r"ignore_configured_endpoint_urls)[ \t]*[=:]",
    re.MULTILINE | re.IGNORECASE,
)
"""The same in `HOME/.aws/config`, or in the credentials file, where the SDK takes them too; in any profile."""


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

    def renewing(self, now: Callable[[], datetime.datetime] | None = None) -> "Renewing":
        """Make a source of credentials that never gives any that are about to expire.

        Args:
            now: For tests.
        """
        return Renewing(self.fresh_keys, now or functools.partial(datetime.datetime.now, datetime.UTC), self._reporter)

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
        if static and _PLAIN_REGION.fullmatch(region) and not self._is_for_boto():
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

    def _is_for_boto(self) -> bool:
        """Whether something is set that says how AWS is to be reached, and that our own request does not know."""
        if _BOTO_ONLY & self._environment.keys():
            return True
        for name in ("config", "credentials"):
            with contextlib.suppress(OSError):
                if _BOTO_SETTING.search((self._home / ".aws" / name).read_text("utf-8", "replace")):
                    return True
        return False

    def tls_environment(self) -> Mapping[str, str]:
        """The environment, with the AWS_CA_BUNDLE that the SDK goes by: it may stand in the settings of the SDK."""
        bundle = self._base_session.get_config_variable("ca_bundle")
        return {**self._environment, "AWS_CA_BUNDLE": bundle} if bundle else self._environment

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

    def client(
        self,
        service: str,
        keys: "Keys | Renewing",
        region: str | None = None,
        **options: Any,  # noqa: ANN401 botocore has no types
    ) -> Any:  # noqa: ANN401 boto3 makes its clients at run time
        """Make a boto3 client that acts with these credentials.

        Args:
            service: For example "ec2".
            keys: Some, or for work that may outlive them a source of them, see `renewing`.
            region: None for the upload's.
            options: Of botocore's Config, in place of those of `api.CONFIG`.
        """
        from clouduploader.platforms.ec2 import api

        # A session of its own: the credentials become a part of it. Its settings are those that STS is asked by.
        session = base_session(self._home, self._settings.profile, is_role_wanted=bool(self.role_arn))
        return api.client(
            service,
            region=region or self.region,
            keys=keys,
            session=session,
            reporter=self._reporter,
            options=options,
        )


@dataclasses.dataclass(frozen=True)
class _Given:
    """Credentials that a source gives.

    Attributes:
        keys: The credentials.
        renew_at: When to get others; None for never.
    """

    keys: Keys
    renew_at: datetime.datetime | None


class Renewing:
    """A source of credentials that lasts as long as they can be renewed. Safe to use from several threads.

    Args:
        fresh_keys: Gets new ones.
        now: The time.
        reporter: Told of renewals that failed.
    """

    def __init__(
        self, fresh_keys: Callable[[], Keys], now: Callable[[], datetime.datetime], reporter: Reporter
    ) -> None:
        self._fresh_keys = fresh_keys
        self._now = now
        self._reporter = reporter
        self._lock = threading.Lock()
        self._given: _Given | None = None

    def __call__(self) -> Keys:
        """Give credentials that stay valid for minutes.

        Blocks for the network only if there are no valid ones: while one thread renews them, the others go on with
        the old ones. A renewal that fails is no error as long as these are valid.

        Raises:
            ClouduploaderError: See `Account.fresh_keys`.
        """
        given = self._given
        if given and (given.renew_at is None or self._now() < given.renew_at):
            return given.keys
        valid = given if given and (given.keys.expires is None or self._now() < given.keys.expires) else None
        if not self._lock.acquire(blocking=valid is None) and valid:
            return valid.keys
        try:
            if self._given is given or self._given is None:  # else another thread renewed them while we waited
                self._given = self._renewed(valid)
            return self._given.keys
        finally:
            self._lock.release()

    def refuse(self, keys: Keys) -> None:
        """Take note that AWS calls these expired, whatever we think: the next call gives others."""
        with self._lock:
            given, now = self._given, self._now()
            if given and given.keys == keys:
                self._given = _Given(dataclasses.replace(keys, expires=now), renew_at=now)

    def _renewed(self, valid: _Given | None) -> _Given:
        try:
            keys = self._fresh_keys()
        except ClouduploaderError as exc:
            if valid is None or valid.keys.expires is None:
                raise
            self._reporter.detail(f"The credentials can't be renewed yet: {exc.message}")
            return dataclasses.replace(valid, renew_at=min(self._now() + RENEWAL_PAUSE, valid.keys.expires))
        now = self._now()
        if keys.expires is None:
            return _Given(keys, renew_at=None)
        life = max(keys.expires - now, datetime.timedelta())
        return _Given(keys, renew_at=keys.expires - min(RENEWAL_MARGIN, life / 3))


def base_session(home: Path, profile: str, *, is_role_wanted: bool) -> "botocore.session.Session":
    """Make a botocore session that looks for credentials where `credentials` says."""
    import botocore.session

    session = botocore.session.Session()
    if is_role_wanted and (home / ".aws").is_dir():
        session.set_config_variable("credentials_file", str(home / ".aws" / "credentials"))
        session.set_config_variable("config_file", str(home / ".aws" / "config"))
        session.set_config_variable("profile", profile)
    return session


@dataclasses.dataclass(frozen=True)
class Identity:
    """Who the service is in AWS.

    Attributes:
        arn: Of its user or role.
        account_id: 12 digits.
        date: The header Date of the answer that said so, or "".
    """

    arn: str
    account_id: str
    date: str

    @property
    def partition(self) -> str:
        """Which of the AWSs that know nothing of each other: aws, aws-cn, aws-us-gov."""
        return self.arn.split(":")[1]


def identity(session: "botocore.session.Session", *, region: str, reporter: Reporter) -> Identity:
    """Ask AWS who we are; no right is needed for that. Uses the network.

    Args:
        session: See `base_session`.
        region: Of STS.
        reporter: Told of the call if verbose.

    Raises:
        CredentialsError: There are no credentials, or AWS does not accept them.
        ClouduploaderError: See `refusals.translate`.
    """
    from clouduploader.platforms.ec2 import api

    sts_client = api.client("sts", region=region, reporter=reporter, session=session)
    with api.translated("our own account"):
        answer = sts_client.get_caller_identity()
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    return Identity(answer["Arn"], answer["Account"], date)


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


def account(
    context: PlatformContext,
    settings: Settings,
    *,
    targetdata: Mapping[str, JsonValue],
    user: str,
    job_name: str | None,
    reporter: Reporter,
) -> Account:
    """Make the way into the account of these target data."""
    return Account(
        home=context.home,
        settings=settings,
        environment=context.environment,
        targetdata=targetdata,
        session=session_name(user=user, job_name=job_name),
        reporter=reporter,
    )


def check_role(request: UploadRequest) -> None:
    """Refuse an upload for somebody who named no role: it would go into the service's own account.

    Raises:
        TargetDataError: There is no role, and nobody who uploads for himself.
    """
    if not request.targetdata.get("arn") and not request.is_by_hand:
        raise TargetDataError(
            "the user has no AWS role configured: arn is empty",
            hint="Let the user enter the role's ARN in the cloud upload configuration of OBS.",
        )
