"""The identity of this service in AWS, and temporary credentials for the user's role.

With a role, the keys in `HOME/.aws` ask for it; where there are none, those of the SDK's usual chain do
(environment, profiles, SSO, instance role). Without a role that chain is used as it is, for an admin's upload
into the admin's own account.
"""

import dataclasses
import datetime
import functools
import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clouduploader.errors import ClouduploaderError, CredentialsError, TargetDataError, TransientError
from clouduploader.platforms.ec2 import endpoint, fields, rights
from clouduploader.platforms.ec2.settings import Ec2Settings
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import Context, JsonValue, Reporter, UploadContext
from clouduploader.util import deadline, privileges
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

if TYPE_CHECKING:
    import botocore.session
    from mypy_boto3_ebs import EBSClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_sts import STSClient
    from mypy_boto3_sts.type_defs import AssumeRoleRequestTypeDef

SESSION_NAME_LENGTH = 64  # RoleSessionName, API reference of AssumeRole
RENEWAL_MARGIN = datetime.timedelta(minutes=5)  # of life left: as long as AWS lets a clock be wrong
RENEWAL_PAUSE = datetime.timedelta(seconds=30)  # between tries while the old ones still serve
CHAIN_SECONDS = 300.0  # for the SDK to find credentials: a program may have a person log in with a browser
CHAIN_HINT = "Look at the variables AWS_* of the environment, and at credential_process, SSO and roles in .aws/config."
_NOT_IN_SESSION_NAME = re.compile(r"[^A-Za-z0-9_=,.@-]+")  # its pattern there is [\w+=,.@-]*
_KEY = re.compile(r"[!-~]*")  # what can stand in a header; a wrapped line or a curly quote can't


def session_name(*, user: str, job_name: str | None) -> str:
    """Name a session so that CloudTrail shows user and job: `obs-42-tom`."""
    words = ["obs", *([job_name] if job_name else []), user]
    name = _NOT_IN_SESSION_NAME.sub("-", "-".join(words))
    return name[:SESSION_NAME_LENGTH].rstrip("-")


class Account:
    """The account that an image is uploaded to: credentials for it, and clients that act with them.

    Args:
        home: Home of clouduploader.
        settings: See Ec2Settings.
        targetdata: The keys `arn`, `external_id` and `region` are used.
        session: The session's name, see `session_name`.
        policy: Of the session, as JSON, see `rights`: it can do no more, whatever the role allows.
        reporter: Told of each call if verbose; the secrets are hidden there.
        cancel: Once it is requested, nothing that is asked for takes longer than seconds.
    """

    def __init__(
        self,
        *,
        home: Path,
        settings: Ec2Settings,
        targetdata: Mapping[str, JsonValue],
        session: str,
        policy: str,
        reporter: Reporter,
        cancel: Cancel | None = None,
    ) -> None:
        self._settings = settings
        self._session = session
        self._policy = policy
        self._reporter = reporter
        self.region = str(targetdata["region"])
        self.role_arn = str(targetdata.get("arn", ""))
        self._external_id = str(targetdata.get("external_id", ""))
        self._sts_region = settings.sts_region or self.region
        self._ec2: dict[str, EC2Client] = {}
        self._caller = CallerAccount(
            home,
            settings.profile,
            is_role_wanted=bool(self.role_arn),
            region=self._sts_region,
            reporter=reporter,
            cancel=cancel,
        )

    def fresh_keys(self) -> AccessKeys:
        """Get credentials for the account, with their whole life before them. Uses the network.

        Raises:
            TargetDataError: The settings do not let us assume the role.
            CredentialsError: There are none, or AWS does not accept them.
            ClouduploaderError: See `aws_errors.translate`.
        """
        if not self.role_arn:
            return self._caller.keys()
        if problem := fields.role_problem(self.role_arn, self._settings):
            raise TargetDataError(problem, hint="See roles in [ec2] of clouduploader.conf.")
        keys = self._assume()
        self._reporter.hide(keys.secret_access_key)
        self._reporter.hide(keys.session_token or "")
        return keys

    def renewing(self, now: Callable[[], datetime.datetime] | None = None) -> "RenewedCredentials":
        """Make a source of credentials that never gives any that are about to expire.

        Args:
            now: For tests.
        """
        return RenewedCredentials(
            self.fresh_keys, now or functools.partial(datetime.datetime.now, datetime.UTC), self._reporter
        )

    def _assume(self) -> AccessKeys:
        sts: STSClient = self._caller.client("sts", self._sts_region, self._caller.keys())
        from clouduploader.platforms.ec2 import boto

        parameters: AssumeRoleRequestTypeDef = {
            "RoleArn": self.role_arn,
            "RoleSessionName": self._session,
            "DurationSeconds": self._settings.session_seconds,
            "Policy": self._policy,
        }
        if self._external_id:
            parameters["ExternalId"] = self._external_id
        with boto.translated(f"role {self.role_arn}"):
            given = sts.assume_role(**parameters)["Credentials"]
        return AccessKeys(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], given["Expiration"])

    @functools.cached_property
    def keys(self) -> "RenewedCredentials":
        """Credentials for the account that are renewed before they expire; those of `ec2`, `ebs` and `kms`."""
        return self.renewing()

    def ec2(self, region: str | None = None) -> "EC2Client":
        """Return the client of EC2 in a region, None for the upload's; made when it is first needed."""
        name = region or self.region
        if name not in self._ec2:
            self._ec2[name] = self.client("ec2", self.keys, name)
        return self._ec2[name]

    def ebs(self, **options: Any) -> "EBSClient":  # noqa: ANN401 botocore's Config takes anything
        """Make a client of the EBS direct APIs in the upload's region; for the options see `client`."""
        made: EBSClient = self.client("ebs", self.keys, **options)
        return made

    def kms(self, region: str | None = None) -> "KMSClient":
        """Make a client of KMS; in the upload's region unless another is given."""
        made: KMSClient = self.client("kms", self.keys, region)
        return made

    def client(
        self,
        service: str,
        keys: "AccessKeys | RenewedCredentials",
        region: str | None = None,
        **options: Any,  # noqa: ANN401 botocore has no types
    ) -> Any:  # noqa: ANN401 boto3 makes its clients at run time
        """Make a client of the SDK that acts with these credentials.

        Args:
            service: For example "ec2".
            keys: Some, or for work that may outlive them a source of them, see `renewing`.
            region: None for the upload's.
            options: Of botocore's Config, in place of those of `boto.CONFIG`.
        """
        return self._caller.client(service, region or self.region, keys, **options)

    def route(self, client: Any) -> endpoint.ProxyRoute:  # noqa: ANN401 a client of the SDK
        """Tell how the SDK reaches the EBS direct APIs; see `boto.route`."""
        from clouduploader.platforms.ec2 import boto

        return boto.route(client)


class CallerAccount:
    """This service's own credentials in AWS: those of the home where there are some, else those of the SDK's chain.

    Args:
        home: Home of clouduploader.
        profile: Of the home's credentials.
        is_role_wanted: Whether the credentials are to ask for a role with: without one, the home's are not used.
        region: Whose STS is asked, and where the chain asks AWS if its settings name no region.
        reporter: Told of each call if verbose; the secrets are hidden there.
        cancel: See `Account`.
    """

    def __init__(
        self,
        home: Path,
        profile: str,
        *,
        is_role_wanted: bool,
        region: str,
        reporter: Reporter,
        cancel: Cancel | None = None,
    ) -> None:
        self._home = home
        self._profile = profile
        self._is_role_wanted = is_role_wanted
        self._region = region
        self._reporter = reporter
        self._cancel = cancel

    def keys(self) -> AccessKeys:
        """Get credentials from the SDK's chain, which may run programs, ask a person, and use the network.

        Raises:
            CredentialsError: There are none, or the chain fails, whatever it raises.
            ConfigError: The SDK can't use the proxy through which the chain asks.
            TransientError: The chain did not end in CHAIN_SECONDS, or what it asks can't be reached or is busy.
        """
        from clouduploader.platforms.ec2 import boto, exchange

        try:
            # With a terminal the chain is never left behind: it may have changed the terminal to ask for a code.
            found = (
                deadline.until_left(self._found)
                if _has_terminal()
                else deadline.within(CHAIN_SECONDS, self._found, self._cancel)
            )
        except deadline.OverdueError:
            raise TransientError(
                "the AWS credentials can't be had: who gives them did not answer in time", hint=CHAIN_HINT
            ) from None
        except EOFError:
            raise CredentialsError(
                "the AWS credentials can't be had: a code of an MFA device is asked for, and there is no terminal",
                hint="Log in before, as for the aws command, or give keys that need no code.",
            ) from None
        except ClouduploaderError:
            raise
        except Exception as exc:  # noqa: BLE001 providers raise what their parsers, programs and sockets do
            # "from None": what a provider has read may stand in its exception
            if unusable := exchange.unusable_url(exc):
                raise unusable from None
            message = f"the AWS credentials can't be had: {boto.words(exc)}"
            if boto.may_heal(exc):
                raise TransientError(message, hint="Try again later.") from None
            raise CredentialsError(
                message, hint=boto.CREDENTIALS_HINT if self._is_role_wanted else CHAIN_HINT
            ) from None
        self._reporter.hide(found.secret_access_key)
        self._reporter.hide(found.session_token or "")
        return found

    def client(
        self,
        service: str,
        region: str,
        keys: "AccessKeys | RenewedCredentials",
        **options: Any,  # noqa: ANN401 botocore has no types
    ) -> Any:  # noqa: ANN401 the SDK makes its clients at run time
        """Make a client of the SDK with the settings that its chain goes by. For the arguments see `Account.client`."""
        from clouduploader.platforms.ec2 import boto

        return boto.client(
            service,
            region=region,
            keys=keys,
            session=self._session if isinstance(keys, AccessKeys) else self._new_session(),  # see there
            reporter=self._reporter,
            options=options,
            cancel=self._cancel,
        )

    def identity(self, keys: AccessKeys) -> "CallerIdentity":
        """Ask AWS for our identity; no right is needed for that. Uses the network.

        Args:
            keys: See `keys`.

        Raises:
            CredentialsError: AWS does not accept the credentials.
            ClouduploaderError: See `aws_errors.translate`.
        """
        from clouduploader.platforms.ec2 import boto

        sts: STSClient = self.client("sts", self._region, keys)
        with boto.translated("our own account"):
            answer = sts.get_caller_identity()
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
        return CallerIdentity(answer["Arn"], answer["Account"], date)

    @property
    def _uses_home(self) -> bool:
        return self._is_role_wanted and (self._home / ".aws").is_dir()

    def _new_session(self) -> "botocore.session.Session":
        import botocore.session

        session = botocore.session.Session()
        if self._uses_home:
            session.set_config_variable("credentials_file", str(self._home / ".aws" / "credentials"))
            session.set_config_variable("config_file", str(self._home / ".aws" / "config"))
            session.set_config_variable("profile", self._profile)
        return session

    @functools.cached_property
    def _session(self) -> "botocore.session.Session":
        """That of the chain, which keeps what it has found and renews it."""
        session = self._new_session()
        if session.get_config_variable("region") is None:
            session.set_config_variable("region", self._region)
        return session

    def _check_programs(self) -> None:
        """Check that root runs no program that is named in another user's home.

        Raises:
            ConfigError: It would.
        """
        profiles = self._session.full_config.get("profiles", {}).values()
        if any("credential_process" in profile for profile in profiles):
            for name in ("config", "credentials"):
                privileges.check_program(self._home / ".aws" / name, "credential_process")

    def _found(self) -> AccessKeys:
        if self._uses_home:
            self._check_programs()
        found = self._session.get_credentials()
        frozen = found and found.get_frozen_credentials()
        if not frozen:
            raise CredentialsError(
                "the AWS credentials can't be had: there are none",
                hint="Put the service's keys into .aws/credentials in the home of clouduploader."
                if self._is_role_wanted
                else "Give a role (--arn, --external-id), or log in as for the aws command.",
            )
        words = (frozen.access_key, frozen.secret_key, frozen.token or "")
        if not all(isinstance(word, str) and _KEY.fullmatch(word) for word in words) or not all(words[:2]):
            raise CredentialsError(
                f"the AWS credentials can't be had: those of {found.method} are no keys of AWS",
                hint="Look for quotes, wrapped lines and characters that are not ASCII.",
            )
        expires: datetime.datetime | None = getattr(found, "_expiry_time", None)
        return AccessKeys(frozen.access_key, frozen.secret_key, frozen.token or None, expires)


def _has_terminal() -> bool:
    """Tell whether the chain can ask a person for a code: then it may take as long as that takes."""
    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


@frozen()
class _Given:
    """Credentials that a source gives.

    Attributes:
        keys: The credentials.
        renew_at: When to get others; None for never.
    """

    keys: AccessKeys
    renew_at: datetime.datetime | None


class RenewedCredentials:
    """A source of credentials that lasts as long as they can be renewed. Safe to use from several threads.

    Args:
        fresh_keys: Gets new ones.
        now: The time.
        reporter: Told of renewals that failed.
    """

    def __init__(
        self, fresh_keys: Callable[[], AccessKeys], now: Callable[[], datetime.datetime], reporter: Reporter
    ) -> None:
        self._fresh_keys = fresh_keys
        self._now = now
        self._reporter = reporter
        self._lock = threading.Lock()
        self._given: _Given | None = None

    def __call__(self) -> AccessKeys:
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

    def refuse(self, keys: AccessKeys) -> None:
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


@frozen()
class CallerIdentity:
    """The identity of the service in AWS.

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
        """The partition of AWS: aws, aws-cn, aws-us-gov."""
        return self.arn.split(":")[1]


def account(ctx: Context, home: Path, settings: Ec2Settings) -> Account:
    """Make the account of a context: for an upload, or else for a clean-up. No network before it is used.

    Args:
        ctx: Whose target data name the account.
        home: Home of clouduploader.
        settings: Section `[ec2]`.

    Raises:
        TargetDataError: It would be the service's own account.
    """
    if not isinstance(ctx, UploadContext):
        return _account(ctx, home, settings, session=session_name(user="clean-up", job_name=None), is_upload=False)
    session = session_name(user=ctx.request.user, job_name=ctx.request.job_name)
    return _account(ctx, home, settings, session=session, is_upload=True)


def account_to_check(ctx: Context, home: Path, settings: Ec2Settings) -> Account:
    """Make the account of a context with the rights that an upload would have; see `account`."""
    return _account(ctx, home, settings, session=session_name(user="check", job_name=None), is_upload=True)


def _account(ctx: Context, home: Path, settings: Ec2Settings, *, session: str, is_upload: bool) -> Account:
    hint = "Let the user enter the role's ARN in the cloud upload configuration of OBS."
    ctx.require_credential("arn", "the user has no AWS role configured", hint=hint)
    return Account(
        home=home,
        settings=settings,
        targetdata={**ctx.targetdata, "region": ctx.region},
        session=session,
        policy=_upload_policy(ctx, settings) if is_upload else rights.of_clean_up(),
        reporter=ctx.reporter,
        cancel=ctx.cancel,
    )


def _upload_policy(ctx: Context, settings: Ec2Settings) -> str:
    copies = ctx.targetdata.get("regions")
    regions = [ctx.region, *(str(name) for name in copies)] if isinstance(copies, list) else [ctx.region]
    return rights.of_upload(
        ctx.targetdata,
        fields.method(ctx.targetdata, settings),
        [] if fields.EVERYWHERE in regions else list(dict.fromkeys(regions)),
    )
