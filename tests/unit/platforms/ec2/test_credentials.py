import datetime
import os
import re
import threading
import traceback

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import ClouduploaderError, CredentialsError, NetworkError
from clouduploader.platforms.ec2 import credentials, settings
from clouduploader.platforms.ec2.sigv4 import Keys

SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)  # API reference of AssumeRole, RoleSessionName
PLAIN = "[default]\naws_access_key_id = AKIAHOME\naws_secret_access_key = SECRET/of+home\n"
ARN = "arn:aws:iam::123456789012:role/obs"


@hypothesis.given(
    user=st.one_of(st.text(st.characters(), max_size=200), st.binary(max_size=99).map(os.fsdecode)),
    job_name=st.one_of(st.none(), st.integers(1, 10**9).map(str)),
)
def test_session_name_is_one_that_sts_takes(user, job_name):
    assert SESSION_NAME.fullmatch(credentials.session_name(user=user, job_name=job_name))


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
    assert credentials.session_name(user=user, job_name=job_name) == expected


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
        credentials.Caller(home, "default", is_role_wanted=True, reporter=Silent()).keys()


class Silent:
    """A reporter that only takes secrets."""

    def hide(self, secret):
        pass


@pytest.fixture
def make_account(tmp_path, record, monkeypatch):
    """A factory of the way into an account; for the SDK the environment given is the process's."""

    def make(*, environment=None, kind=credentials.Account, **targetdata):
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        return kind(
            home=tmp_path,
            settings=settings.Settings(session_seconds=1800),
            targetdata={"region": "eu-west-1"} | targetdata,
            session="obs-7-tom",
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
    }
    assert "Credential=AKIAHOME/" in str(request.headers)
    assert {"SECRET/of+home", "SECRET/of+role", "TOKEN/of+role="} <= set(record.hidden)
    assert record.details[0].startswith("sts AssumeRole: 200 in ")


def test_role_without_external_id_sends_none(make_home, make_account, make_endpoint, granted):
    make_home(PLAIN)
    endpoint = make_endpoint(granted)
    make_account(environment={"AWS_ENDPOINT_URL": endpoint.url}, arn=ARN).fresh_keys()
    assert "ExternalId" not in endpoint.requests[0].form


def test_region_of_sts_can_be_set(tmp_path, make_home, make_endpoint, granted, record, monkeypatch):
    make_home(PLAIN)
    endpoint = make_endpoint(granted)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
    credentials.Account(
        home=tmp_path,
        settings=settings.Settings(sts_region="eu-central-1"),
        targetdata={"region": "ap-east-1", "arn": ARN},
        session="obs",
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
    keys = Keys("AKIA", "SECRET", None)
    assert way.client("sts", keys).meta.endpoint_url == "https://sts-fips.us-east-1.amazonaws.com"
    route = way.route(way.client("ebs", keys))
    assert route.place.url == "https://ebs-fips.us-east-1.amazonaws.com"
    assert route.authorities == "/etc/ours.pem"


def test_refusal_is_translated(make_account, make_endpoint, refused):
    endpoint = make_endpoint(refused("AccessDenied", status=403))
    environment = {"AWS_ENDPOINT_URL": endpoint.url, "AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "sesame"}
    with pytest.raises(CredentialsError, match=f"does not let us assume role {ARN}") as caught:
        make_account(environment=environment, arn=ARN).fresh_keys()
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


def test_role_without_anybody_who_could_ask_for_it_is_an_error(make_account):
    with pytest.raises(CredentialsError, match="the AWS credentials can't be had: there are none"):
        make_account(arn=ARN).fresh_keys()


def test_profile_that_is_not_there_is_an_error_with_its_name(tmp_path, make_home, record):
    make_home(PLAIN)
    with pytest.raises(ClouduploaderError, match="nobody"):
        credentials.Account(
            home=tmp_path,
            settings=settings.Settings(profile="nobody"),
            targetdata={"region": "eu-west-1", "arn": ARN},
            session="obs",
            reporter=record,
        ).fresh_keys()


def test_without_a_role_the_own_credentials_are_used_and_not_those_of_the_home(make_home, make_account, record):
    make_home(PLAIN)
    environment = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "sesame", "AWS_SESSION_TOKEN": "open"}
    assert make_account(environment=environment).fresh_keys() == Keys("AKIAENV", "sesame", "open", None)
    assert {"sesame", "open"} <= set(record.hidden)


def test_without_a_role_and_own_credentials_there_is_an_error(make_home, make_account):
    make_home(PLAIN)
    with pytest.raises(CredentialsError, match="the AWS credentials can't be had: there are none") as caught:
        make_account().fresh_keys()
    assert "--arn" in caught.value.hint


def test_half_of_the_own_credentials_is_an_error(make_account):
    with pytest.raises(CredentialsError, match="AWS_SECRET_ACCESS_KEY"):
        make_account(environment={"AWS_ACCESS_KEY_ID": "AKIAENV"}).fresh_keys()


NOON = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
MINUTE = datetime.timedelta(minutes=1)


class Granting(credentials.Account):
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
        return Keys(f"ASIA{len(self.asked)}", "SECRET", "TOKEN", self.life and self.now + self.life)


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
    assert any("can't be renewed yet: sts can't be reached" in line for line in record.details)


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
    assert used == ["ASIA1", "ASIA2"]


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
    keys = Keys("AKIA", "SECRET", None)
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
