import datetime
import io
import json
import os
import re
import subprocess
import threading
import traceback

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import (
    ClouduploaderError,
    ConfigError,
    CredentialsError,
    NetworkError,
    TargetDataError,
    TransientError,
)
from clouduploader.platforms.ec2 import Ec2, auth, rights, settings
from clouduploader.platforms.ec2.sigv4 import AccessKeys
from clouduploader.plugin import Context, PlatformContext
from clouduploader.util.cancel import Cancel

SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)  # API reference of AssumeRole, RoleSessionName
PLAIN = "[default]\naws_access_key_id = AKIAHOME\naws_secret_access_key = SECRET/of+home\n"
ARN = "arn:aws:iam::123456789012:role/obs"
POLICY = rights.of_clean_up()


@hypothesis.given(
    user=st.one_of(st.text(st.characters(), max_size=200), st.binary(max_size=99).map(os.fsdecode)),
    job_name=st.one_of(st.none(), st.integers(1, 10**9).map(str)),
)
def test_session_name_is_one_that_sts_takes(user, job_name):
    assert SESSION_NAME.fullmatch(auth.session_name(user=user, job_name=job_name))


@pytest.mark.parametrize(
    ("user", "job_name", "expected"),
    [
        ("tom", "42", "obs-42-tom"),
        ("tom", None, "obs-tom"),
        ("o'brien & sons", "7", "obs-7-o-brien-sons"),
        ("a@b.org", "7", "obs-7-a@b.org"),
        ("größe", "7", "obs-7-gr-e"),
        ("\udcff", "7", "obs-7"),
        ("x" * 99, "7", "obs-7-" + "x" * 58),
    ],
)
def test_session_name_names_job_and_user(user, job_name, expected):
    assert auth.session_name(user=user, job_name=job_name) == expected


@pytest.fixture
def make_home(tmp_path):
    """A factory of a home with this text in .aws/credentials."""

    def make(text=None):
        if text is not None:
            (tmp_path / ".aws").mkdir()
            (tmp_path / ".aws" / "credentials").write_bytes(os.fsencode(text))
        return tmp_path

    return make


BROKEN_FILES = [
    "aws_secret_access_key = SECRET/of+home\n",
    "[default]\nSECRET/of+home\n",
    "[default]\naws_secret_access_key = SECRET/of+home \udcff\n",
    f"{PLAIN}[default]\naws_secret_access_key = SECRET/of+home\n",
    f"{PLAIN}aws_secret_access_key = SECRET/of+home\n",
    f"{PLAIN}aws_session_token = SECRET/of+home\n  SECRET/of+home\n",
    f"{PLAIN}aws_session_token = “SECRET/of+home”\n",
    "[default]\naws_access_key_id = “A”\naws_secret_access_key = SECRET/of+home\n",
    "[default]\naws_access_key_id = A\n B\naws_secret_access_key = SECRET/of+home\n",
    "[default]\naws_access_key_id = A\naws_secret_access_key = SECRET/of+home\n SECRET/of+home\n",
    "[default]\naws_secret_access_key = SECRET/of+home\n",
    "[default]\naws_access_key_id = A\n",
    "[other]\naws_access_key_id = A\naws_secret_access_key = SECRET/of+home\n",
    "",
]


@pytest.mark.parametrize("text", BROKEN_FILES)
def test_file_without_keys_is_refused_without_showing_a_line_of_it(make_home, make_account, text):
    make_home(text)
    with pytest.raises(CredentialsError, match="the AWS credentials can't be had: ") as caught:
        make_account(arn=ARN).fresh_keys()
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


def test_file_that_cannot_be_read_is_refused(make_home, make_account):
    (make_home() / ".aws" / "credentials").mkdir(parents=True)
    with pytest.raises(CredentialsError, match="the AWS credentials can't be had: "):
        make_account(arn=ARN).fresh_keys()


@hypothesis.given(
    st.one_of(st.binary(), st.text(st.sampled_from("[]=:\n aws_key")).map(lambda text: f"[default]\n{text}".encode()))
)
def test_any_file_gives_keys_or_an_error_of_ours(tmp_path_factory, data):
    home = tmp_path_factory.mktemp("home")
    (home / ".aws").mkdir()
    (home / ".aws" / "credentials").write_bytes(data)
    with pytest.raises(CredentialsError, match="the AWS credentials can't be had: "):
        auth.CallerAccount(home, "default", is_role_wanted=True, region="eu-west-1", reporter=Silent()).keys()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_helper_of_a_home_of_another_user_is_not_run_by_root(tmp_path):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(f"[profile x]\ncredential_process = touch {tmp_path}/was-run\n")
    os.chown(tmp_path, 65534, 65534)
    caller = auth.CallerAccount(tmp_path, "x", is_role_wanted=True, region="eu-west-1", reporter=Silent())
    with pytest.raises(ConfigError, match=r"root does not run credential_process: .*may have been written"):
        caller.keys()
    os.chown(tmp_path, 0, 0)
    with pytest.raises(CredentialsError):  # now it is root's own affair
        caller.keys()
    assert (tmp_path / "was-run").exists()


class Silent:
    """A reporter that only takes secrets."""

    def hide(self, secret):
        pass


@pytest.fixture
def make_account(tmp_path, record, monkeypatch):
    """A factory of the way into an account; for the SDK the environment given is the process's."""

    def make(*, environment=None, kind=auth.Account, allowed="*", **targetdata):
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        return kind(
            home=tmp_path,
            settings=settings.Ec2Settings(session_seconds=1800, roles=allowed),
            targetdata={"region": "eu-west-1"} | targetdata,
            session="obs-7-tom",
            policy=POLICY,
            reporter=record,
        )

    return make


@pytest.mark.usefixtures("home")
def test_role_is_assumed_with_the_keys_of_the_home(make_home, make_account, make_endpoint, granted, record):
    make_home(PLAIN)
    endpoint = make_endpoint(granted)
    way = make_account(environment={"AWS_ENDPOINT_URL": endpoint.url}, arn=ARN, external_id="ext")
    found = way.fresh_keys()
    assert found.access_key_id == "ASIAEXAMPLE"
    (request,) = endpoint.requests
    assert request.form == {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": ARN,
        "RoleSessionName": "obs-7-tom",
        "DurationSeconds": "1800",
        "ExternalId": "ext",
        "Policy": POLICY,
    }
    assert "Credential=AKIAHOME/" in str(request.headers)
    assert {"SECRET/of+home", "SECRET/of+role", "TOKEN/of+role="} <= set(record.secrets)
    assert any(line.startswith("sts AssumeRole: 200 in ") for line in record.lines)


def test_role_without_external_id_sends_none(make_home, make_account, make_endpoint, granted):
    make_home(PLAIN)
    endpoint = make_endpoint(granted)
    make_account(environment={"AWS_ENDPOINT_URL": endpoint.url}, arn=ARN).fresh_keys()
    assert "ExternalId" not in endpoint.requests[0].form


def test_role_that_the_settings_do_not_name_is_refused_before_aws_is_asked(make_home, make_account, make_endpoint):
    make_home(PLAIN)
    endpoint = make_endpoint(None)
    way = make_account(
        environment={"AWS_ENDPOINT_URL": endpoint.url}, arn=ARN, allowed="arn:aws:iam::*:role/clouduploader/*"
    )
    with pytest.raises(TargetDataError, match=r"role/obs, and the administrator lets this service assume only arn:"):
        way.fresh_keys()
    assert endpoint.requests == []


@pytest.fixture
def policy_of(tmp_path, make_home, make_endpoint, granted, record, monkeypatch):
    """The actions, by their conditions, that the session of a context may call."""
    make_home(PLAIN)

    def ask(ctx, make=auth.account):
        endpoint = make_endpoint(granted)
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
        make(ctx, tmp_path, settings.Ec2Settings(method="ebs-direct")).fresh_keys()
        statements = json.loads(endpoint.requests[0].form["Policy"])["Statement"]
        return {action: found.get("Condition") for found in statements for action in found["Action"]}

    return ask


def context(record, **targetdata):
    platform = Ec2(PlatformContext(home=None, settings={}, environment={}))
    return Context(platform, {"arn": ARN, "region": "eu-west-1", **targetdata}, record, Cancel())


def test_session_of_a_clean_up_can_remove_and_make_nothing(policy_of, record):
    assert set(policy_of(context(record))) == {rights.LOOKS, *rights.REMOVERS}


def test_session_of_an_upload_is_for_its_method_and_regions(policy_of, record):
    found = policy_of(context(record, regions=["us-east-1"]), auth.account_to_check)
    assert found["ebs:StartSnapshot"] == {"StringEquals": {"aws:RequestedRegion": ["eu-west-1", "us-east-1"]}}
    assert found["ebs:GetSnapshotBlock"]["Null"] == {"aws:ResourceTag/clouduploader:key": "false"}
    assert "ec2:CopyImage" in found
    assert not {"ec2:RunInstances", "ec2:ModifySnapshotAttribute"} & set(found)
    anywhere = policy_of(context(record, regions=["all"]), auth.account_to_check)
    assert anywhere["ebs:StartSnapshot"] is None


def test_region_of_sts_can_be_set(tmp_path, make_home, make_endpoint, granted, record, monkeypatch):
    make_home(PLAIN)
    endpoint = make_endpoint(granted)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
    auth.Account(
        home=tmp_path,
        settings=settings.Ec2Settings(sts_region="eu-central-1"),
        targetdata={"region": "ap-east-1", "arn": ARN},
        session="obs",
        policy=POLICY,
        reporter=record,
    ).fresh_keys()
    assert "/eu-central-1/sts/aws4_request" in str(endpoint.requests[0].headers)


def use_config(home, *lines):
    (home / ".aws" / "config").write_text("\n".join(["[default]", *lines, ""]))


def test_role_is_assumed_where_the_config_of_the_home_says(make_home, make_account, make_endpoint, granted):
    endpoint = make_endpoint(granted)
    use_config(make_home(PLAIN), f"endpoint_url = {endpoint.url}")
    found = make_account(arn=ARN).fresh_keys()
    assert found.access_key_id == "ASIAEXAMPLE"
    assert found.expires == datetime.datetime(2026, 11, 22, 18, tzinfo=datetime.UTC)


def test_role_is_assumed_with_the_keys_of_the_environment_if_the_home_has_none(make_account, make_endpoint, granted):
    endpoint = make_endpoint(granted)
    environment = {"AWS_ENDPOINT_URL": endpoint.url, "AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "x"}
    make_account(environment=environment, arn=ARN).fresh_keys()
    assert "Credential=AKIAENV/" in str(endpoint.requests[0].headers)


def test_clients_go_by_the_config_of_the_home(make_home, make_account):
    use_config(make_home(PLAIN), "use_fips_endpoint = true", "ca_bundle = /etc/ours.pem")
    way = make_account(arn=ARN, region="us-east-1")
    keys = AccessKeys("AKIA", "SECRET", None)
    assert way.client("sts", keys).meta.endpoint_url == "https://sts-fips.us-east-1.amazonaws.com"
    route = way.route(way.client("ebs", keys))
    assert route.place.url == "https://ebs-fips.us-east-1.amazonaws.com"
    assert route.authorities == "/etc/ours.pem"


def test_refusal_is_translated(make_account, make_endpoint, refused):
    endpoint = make_endpoint(refused("AccessDenied", status=403))
    environment = {"AWS_ENDPOINT_URL": endpoint.url, "AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "sesame"}
    with pytest.raises(CredentialsError, match=f"does not let us assume role {ARN}") as caught:
        make_account(environment=environment, arn=ARN).fresh_keys()
    assert "must name this service's account, and the external id" in caught.value.hint
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


ROLE_OF_PROFILE = f"[default]\nrole_arn = {ARN}\nsource_profile = base\nregion = eu-west-1\n[base]\n{PLAIN[10:]}"


@pytest.mark.usefixtures("hasty_sdk")
@pytest.mark.parametrize(
    ("code", "status", "may_heal"),
    [
        ("Throttling", 400, True),
        ("TooManyRequestsException", 429, True),
        ("ServiceUnavailable", 503, True),
        ("AccessDenied", 403, False),
        ("ExpiredToken", 403, False),
    ],
)
def test_chain_that_aws_refuses_may_heal_where_aws_is_busy(
    make_home, make_account, make_endpoint, refused, code, status, may_heal
):
    make_home(ROLE_OF_PROFILE)
    endpoint = make_endpoint(refused(code, status=status))
    with pytest.raises(ClouduploaderError, match="the AWS credentials can't be had: .*" + code) as caught:
        make_account(environment={"AWS_ENDPOINT_URL": endpoint.url}, arn=ARN).fresh_keys()
    assert isinstance(caught.value, TransientError if may_heal else CredentialsError)


@pytest.mark.usefixtures("hasty_sdk")
@pytest.mark.parametrize(
    "answer",
    [None, (502, "<html>Bad Gateway</html>"), (503, ""), (403, "<html>log in first</html>")],
    ids=["none", "bad gateway", "empty", "portal"],
)
def test_chain_that_does_not_reach_aws_may_heal(make_home, make_account, make_endpoint, answer):
    make_home(ROLE_OF_PROFILE)
    with pytest.raises(TransientError, match="the AWS credentials can't be had: "):
        make_account(environment={"AWS_ENDPOINT_URL": make_endpoint(answer).url}, arn=ARN).fresh_keys()


@pytest.mark.usefixtures("hasty_sdk", "unknown_hosts")
@pytest.mark.parametrize("proxy", ["socks5://tom:sesame@127.0.0.1:9", "http://tom:sesame@127.0.0.1:99999"])
def test_chain_that_can_not_use_its_proxy_has_a_wrong_setting(make_home, make_account, monkeypatch, proxy):
    make_home(ROLE_OF_PROFILE)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigError, match="the proxy on the way") as caught:
        make_account(arn=ARN).fresh_keys()
    assert "HTTPS_PROXY" in caught.value.hint
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


def test_chain_asks_in_the_region_of_the_upload_where_its_settings_name_none(
    make_home, make_account, make_endpoint, refused
):
    endpoint = make_endpoint(refused("AccessDenied", status=403))
    make_home(ROLE_OF_PROFILE.replace("region = eu-west-1\n", ""))
    with pytest.raises(CredentialsError):
        make_account(environment={"AWS_ENDPOINT_URL": endpoint.url}, arn=ARN, region="ap-south-1").fresh_keys()
    assert "/ap-south-1/sts/" in endpoint.requests[0].headers["Authorization"]


def test_role_without_anybody_who_could_ask_for_it_is_an_error(make_account):
    with pytest.raises(CredentialsError, match="the AWS credentials can't be had: there are none"):
        make_account(arn=ARN).fresh_keys()


def test_profile_that_is_not_there_is_an_error_with_its_name(tmp_path, make_home, record):
    make_home(PLAIN)
    with pytest.raises(ClouduploaderError, match="nobody"):
        auth.Account(
            home=tmp_path,
            settings=settings.Ec2Settings(profile="nobody"),
            targetdata={"region": "eu-west-1", "arn": ARN},
            session="obs",
            policy=POLICY,
            reporter=record,
        ).fresh_keys()


def test_without_a_role_the_own_credentials_are_used_and_not_those_of_the_home(make_home, make_account, record):
    make_home(PLAIN)
    environment = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "sesame", "AWS_SESSION_TOKEN": "open"}
    assert make_account(environment=environment).fresh_keys() == AccessKeys("AKIAENV", "sesame", "open", None)
    assert {"sesame", "open"} <= set(record.secrets)


def test_without_a_role_and_own_credentials_there_is_an_error(make_home, make_account):
    make_home(PLAIN)
    with pytest.raises(CredentialsError, match="the AWS credentials can't be had: there are none") as caught:
        make_account().fresh_keys()
    assert "--arn" in caught.value.hint


@pytest.mark.parametrize("is_by_hand", [True, False])
def test_own_credentials_are_for_the_own_account_only(tmp_path, record, is_by_hand):
    platform = Ec2(PlatformContext(home=tmp_path, settings={}, environment={}))
    ctx = Context(platform, {"region": "eu-west-1"}, record, Cancel(), is_by_hand=is_by_hand)
    if is_by_hand:
        assert ctx.client.region == "eu-west-1"
    else:
        with pytest.raises(TargetDataError, match=r"^the user has no AWS role configured \(arn\)$"):
            _ = ctx.client


def test_half_of_the_own_credentials_is_an_error(make_account):
    with pytest.raises(CredentialsError, match="AWS_SECRET_ACCESS_KEY"):
        make_account(environment={"AWS_ACCESS_KEY_ID": "AKIAENV"}).fresh_keys()


NOON = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
MINUTE = datetime.timedelta(minutes=1)


class Granting(auth.Account):
    """An account whose credentials live so long by a clock of our own; `outages` are moments without an answer."""

    def start(self, life):
        self.now, self.life, self.asked, self.outages = NOON, life, [], []
        self.before = lambda: None
        self.source = self.renewing(now=lambda: self.now)
        return self

    def fresh_keys(self):
        self.before()
        self.asked.append(self.now)
        if any(start <= self.now < end for start, end in self.outages):
            raise NetworkError("sts can't be reached")
        return AccessKeys(f"ASIA{len(self.asked)}", "SECRET", "TOKEN", self.life and self.now + self.life)


@pytest.fixture
def make_granting(make_account):
    """A factory of Granting."""
    return lambda life: make_account(kind=Granting).start(life)


@pytest.mark.parametrize("minutes", [15, 60, 720])
def test_upload_of_four_hours_has_valid_credentials_all_the_time(make_granting, minutes):
    granting = make_granting(minutes * MINUTE)
    while granting.now < NOON + 240 * MINUTE:
        assert granting.source().expires - granting.now >= 5 * MINUTE
        granting.now += datetime.timedelta(seconds=1)
    assert len(granting.asked) == -(-240 // (minutes - 5))


def test_short_life_is_used_to_two_thirds(make_granting):
    granting = make_granting(3 * MINUTE)
    granting.source()
    granting.now += 1.9 * MINUTE
    assert granting.source().access_key_id == "ASIA1"
    granting.now += 0.2 * MINUTE
    assert granting.source().access_key_id == "ASIA2"


def test_credentials_that_never_expire_are_asked_for_once(make_granting):
    granting = make_granting(None)
    for _ in range(3):
        assert granting.source().access_key_id == "ASIA1"
        granting.now += 1000 * MINUTE


def test_failed_renewal_is_no_error_while_the_old_ones_are_valid(make_granting, record):
    granting = make_granting(15 * MINUTE)
    granting.outages = [(NOON + 1 * MINUTE, NOON + 13 * MINUTE)]
    while granting.now < NOON + 30 * MINUTE:
        assert granting.source().expires > granting.now
        granting.now += datetime.timedelta(seconds=1)
    assert 4 <= len([moment for moment in granting.asked if NOON < moment < NOON + 13 * MINUTE]) <= 7
    assert any("can't be renewed yet: sts can't be reached" in line for line in record.lines)


def test_failed_renewal_is_an_error_once_the_old_ones_have_expired(make_granting):
    granting = make_granting(15 * MINUTE)
    granting.source()
    granting.now += 16 * MINUTE
    granting.outages = [(NOON, granting.now + MINUTE)]
    with pytest.raises(NetworkError):
        granting.source()
    granting.now += MINUTE
    assert granting.source().expires > granting.now


def test_threads_do_not_wait_for_a_renewal_while_the_old_ones_are_valid(make_granting):
    granting = make_granting(15 * MINUTE)
    first = granting.source()
    granting.now += 11 * MINUTE
    is_asked, may_answer = threading.Event(), threading.Event()

    def wait():
        is_asked.set()
        assert may_answer.wait(30)

    granting.before = wait
    renewed = []
    thread = threading.Thread(target=lambda: renewed.append(granting.source()))
    thread.start()
    assert is_asked.wait(30)
    assert granting.source() is first
    may_answer.set()
    thread.join(30)
    assert granting.source() is renewed[0] is not first
    assert len(granting.asked) == 2


def test_threads_that_have_nothing_wait_for_the_same_credentials(make_granting):
    granting = make_granting(15 * MINUTE)
    granting.before = lambda: threading.Event().wait(0.05)
    barrier = threading.Barrier(8)
    found = []

    def ask():
        barrier.wait()
        found.append(granting.source())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len(set(map(id, found))) == len(granting.asked) == 1


def test_credentials_that_aws_calls_expired_are_renewed(make_granting):
    granting = make_granting(60 * MINUTE)
    old = granting.source()
    granting.source.refuse(old)
    assert granting.source().access_key_id == "ASIA2"
    granting.source.refuse(old)  # by a thread whose request had the old ones
    assert granting.source().access_key_id == "ASIA2"


def test_client_tries_again_with_other_credentials_when_they_have_expired(
    make_granting, make_endpoint, refused, monkeypatch
):
    endpoint = make_endpoint(refused("ExpiredToken"))
    granting = make_granting(60 * MINUTE)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
    client = granting.client("sts", granting.source)
    with pytest.raises(client.exceptions.ClientError, match="ExpiredToken"):
        client.get_caller_identity()
    used = [re.search("Credential=(\\w+)/", str(request.headers))[1] for request in endpoint.requests]
    assert used == ["ASIA1", "ASIA2", "ASIA3", "ASIA4", "ASIA5"]


def test_client_does_not_try_again_with_the_very_credentials_that_have_expired(
    make_account, make_endpoint, refused, monkeypatch
):
    endpoint = make_endpoint(refused("ExpiredToken"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
    account = make_account(environment={"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "sesame"})
    client = account.client("sts", account.renewing())
    with pytest.raises(client.exceptions.ClientError, match="ExpiredToken"):
        client.get_caller_identity()
    assert len(endpoint.requests) == 1


def test_client_signs_each_request_with_what_the_source_gives_then(make_granting, make_endpoint, refused, monkeypatch):
    endpoint = make_endpoint(refused("Odd"))
    granting = make_granting(60 * MINUTE)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
    client = granting.client("sts", granting.source)
    for expected in ("ASIA1", "ASIA2", "ASIA3"):
        with pytest.raises(client.exceptions.ClientError):
            client.get_caller_identity()
        assert f"Credential={expected}/" in str(endpoint.requests[-1].headers)
        granting.now += 60 * MINUTE


def test_client_can_be_made_for_another_region(make_account):
    keys = AccessKeys("AKIA", "SECRET", None)
    assert make_account().client("ec2", keys).meta.region_name == "eu-west-1"
    assert make_account().client("ec2", keys, "eu-north-1").meta.region_name == "eu-north-1"


def test_error_of_the_source_comes_through_the_sdk_as_it_is(make_granting, make_endpoint, granted, monkeypatch):
    endpoint = make_endpoint(granted)
    granting = make_granting(60 * MINUTE)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
    client = granting.client("sts", granting.source)
    granting.now += 61 * MINUTE
    granting.outages = [(granting.now, granting.now + MINUTE)]
    with pytest.raises(NetworkError, match="sts can't be reached"):
        client.get_caller_identity()
    assert endpoint.requests == []


HELPERS = {
    "is not there": ("/no/such/helper", "/no/such/helper"),
    "prints no JSON": ("echo Please log in", "JSONDecodeError"),
    "prints nothing": ("true", "JSONDecodeError"),
    "prints a list": ("echo []", ""),
    "prints a number": ("echo 5", ""),
    "prints no version": ("""echo '{"AccessKeyId": "A", "SecretAccessKey": "SECRET"}'""", "Version"),
    "prints another version": ("""echo '{"Version": 2, "AccessKeyId": "A", "SecretAccessKey": "SECRET"}'""", "2"),
    "prints no secret": ("""echo '{"Version": 1, "AccessKeyId": "A"}'""", "SecretAccessKey"),
    "prints keys of other types": ("""echo '{"Version": 1, "AccessKeyId": 5, "SecretAccessKey": ["SECRET"]}'""", ""),
    "prints bytes that are no text": ("""printf '\\377\\376'""", "UnicodeDecodeError"),
    "quotes wrongly": ("""echo "x""", "No closing quotation"),
    "fails": ("""sh -c 'echo the session is over >&2; exit 3'""", "the session is over"),
    "is a directory": ("/usr", "/usr"),
    "gives keys that expire soon or never": (
        """echo '{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "SECRET", "Expiration": "soon"}'""",
        "soon",
    ),
    "gives keys that have expired": (
        """echo '{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "SECRET", "SessionToken": "t","""
        """ "Expiration": "2020-01-01T00:00:00Z"}'""",
        "expired",
    ),
}


def use_profile(monkeypatch, path, *lines):
    path.write_text("\n".join(["[default]", *lines, ""]))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))


@pytest.mark.parametrize("arn", ["", ARN])
@pytest.mark.parametrize("name", HELPERS)
def test_helper_that_does_it_wrong_is_an_error_of_the_credentials(
    make_account, monkeypatch, tmp_path_factory, name, arn
):
    command, words = HELPERS[name]
    if "echo '" in command or "printf" in command:  # the SDK starts no shell
        script = tmp_path_factory.mktemp("bin") / "helper"
        script.write_text(f"#!/bin/sh\n{command}\n")
        script.chmod(0o700)
        command = str(script)
    use_profile(monkeypatch, tmp_path_factory.mktemp("aws") / "config", f"credential_process = {command}")
    with pytest.raises(CredentialsError, match=r"^the AWS credentials can't be had: ") as caught:
        make_account(arn=arn).fresh_keys()
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert "SECRET" not in "".join(traceback.format_exception(caught.value)).replace("SecretAccessKey", "")


PROFILES = {
    "MFA without a terminal": (
        "role_arn = arn:aws:iam::123456789012:role/x",
        "source_profile = base",
        "mfa_serial = arn:aws:iam::111122223333:mfa/tom",
        "[profile base]",
        "aws_access_key_id = AKIA",
        "aws_secret_access_key = SECRET",
    ),
    "a profile in a circle": (
        "role_arn = arn:aws:iam::123456789012:role/x",
        "source_profile = other",
        "[profile other]",
        "role_arn = arn:aws:iam::123456789012:role/y",
        "source_profile = default",
    ),
    "a source that is not there": ("role_arn = arn:aws:iam::123456789012:role/x", "source_profile = nobody"),
    "no source": ("role_arn = arn:aws:iam::123456789012:role/x",),
    "a source of another kind": ("role_arn = arn:aws:iam::123456789012:role/x", "credential_source = Odd"),
    "SSO that nobody logged in to": (
        "sso_start_url = https://example.awsapps.com/start",
        "sso_region = us-east-1",
        "sso_account_id = 111122223333",
        "sso_role_name = admin",
    ),
    "half of SSO": ("sso_start_url = https://example.awsapps.com/start", "sso_account_id = 111122223333"),
    "an SSO session that is not there": ("sso_session = odd", "sso_account_id = 1", "sso_role_name = r"),
    "a token file that is not there": (
        "web_identity_token_file = /no/token",
        "role_arn = arn:aws:iam::123456789012:role/x",
    ),
    "a time-out that is no number": ("metadata_service_timeout = 5s",),
    "tries that are no number": ("metadata_service_num_attempts = many",),
    "half a key": ("aws_access_key_id = AKIA",),
    "a login that is not there": ("login_session = arn:aws:iam::111122223333:user/tom",),
    "no keys at all": (),
    "no INI": ("x", "[["),
    "a services section that is not there": ("services = odd", "credential_process = true"),
}


@pytest.mark.parametrize("name", PROFILES)
def test_profile_that_gives_no_credentials_is_an_error_of_theirs(make_account, monkeypatch, tmp_path_factory, name):
    use_profile(monkeypatch, tmp_path_factory.mktemp("aws") / "config", *PROFILES[name])
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("getpass.getpass", answer_nothing)
    with pytest.raises(CredentialsError, match=r"^the AWS credentials can't be had: ") as caught:
        make_account().fresh_keys()
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in caught.value.message


def answer_nothing(_prompt):
    """What getpass comes to where there is no terminal, without its warning."""
    raise EOFError


@pytest.mark.parametrize(
    "environment",
    [
        {"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/token", "AWS_ROLE_ARN": ARN},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/creds"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "odd"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/no"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "a\nb"},
        {"AWS_PROFILE": "nobody"},
        {"AWS_ACCESS_KEY_ID": "AKIA"},
        {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "“SECRET”"},
        {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "SECRET\nof two lines"},
        {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "SECRET", "AWS_SESSION_TOKEN": "a b"},
        {
            "AWS_ACCESS_KEY_ID": "A",
            "AWS_SECRET_ACCESS_KEY": "SECRET",
            "AWS_SESSION_TOKEN": "t",
            "AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z",
        },
        {
            "AWS_ACCESS_KEY_ID": "A",
            "AWS_SECRET_ACCESS_KEY": "SECRET",
            "AWS_SESSION_TOKEN": "t",
            "AWS_CREDENTIAL_EXPIRATION": "soon",
        },
        {"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "odd"},
        {"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv7"},
        {"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9/"},
        {"AWS_METADATA_SERVICE_TIMEOUT": "soon"},
    ],
    ids=lambda environment: "+".join(environment),
)
def test_environment_that_gives_no_credentials_is_an_error_of_theirs(make_account, monkeypatch, environment):
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    with pytest.raises(CredentialsError, match=r"^the AWS credentials can't be had: ") as caught:
        make_account(environment=environment).fresh_keys()
    assert "SECRET" not in "".join(traceback.format_exception(caught.value)).replace("AWS_SECRET_ACCESS_KEY", "")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "answer",
    [
        (200, "x"),
        (200, "[]"),
        (200, "{}"),
        (200, '{"AccessKeyId": "A"}'),
        (200, '{"AccessKeyId": "A", "SecretAccessKey": "SECRET", "Token": "t", "Expiration": "soon"}'),
        (200, b"\xff\xfe"),
        (404, "no"),
        (500, ""),
        (302, "", {"Location": "http://127.0.0.1:9/"}),
    ],
)
def test_container_that_answers_nonsense_is_an_error_of_the_credentials(
    make_account, make_endpoint, monkeypatch, answer
):
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    environment = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": make_endpoint(answer).url}
    with pytest.raises(CredentialsError, match=r"^the AWS credentials can't be had: "):
        make_account(environment=environment).fresh_keys()


def test_helper_that_does_not_answer_is_ended(make_account, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(auth, "CHAIN_SECONDS", 1.0)
    use_profile(monkeypatch, tmp_path_factory.mktemp("aws") / "config", "credential_process = sleep 4711")
    with pytest.raises(TransientError, match=r"the AWS credentials can't be had: .* did not answer in time"):
        make_account().fresh_keys()
    ours = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "sleep 4711"], stdout=subprocess.PIPE, check=False)
    assert ours.stdout == b""


def test_renewal_that_fails_in_the_chain_is_an_error_of_the_credentials(make_account, monkeypatch, tmp_path_factory):
    helper = tmp_path_factory.mktemp("bin") / "helper"
    expires = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)).isoformat()
    keys = {"AccessKeyId": "A", "SecretAccessKey": "S", "SessionToken": "T", "Expiration": expires}
    helper.write_text(f"#!/bin/sh\necho '{json.dumps({'Version': 1, **keys})}'\n")
    helper.chmod(0o700)
    use_profile(monkeypatch, tmp_path_factory.mktemp("aws") / "config", f"credential_process = {helper}")
    way = make_account()
    assert way.fresh_keys().access_key_id == "A"
    helper.write_text("#!/bin/sh\necho Please log in\n")
    later = datetime.datetime.now() + datetime.timedelta(minutes=10)
    monkeypatch.setattr("botocore.credentials._local_now", lambda: later.astimezone())
    with pytest.raises(CredentialsError, match=r"^the AWS credentials can't be had: "):
        way.fresh_keys()
