import datetime
import os
import re
import traceback

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import ClouduploaderError, ConfigError, CredentialsError
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


def test_static_keys_are_those_of_the_profile(make_home):
    home = make_home(f"{PLAIN}[obs]\naws_access_key_id=B\naws_secret_access_key=%(x)s\naws_session_token=T\n")
    assert credentials.static_keys(home, "default") == Keys("AKIAHOME", "SECRET/of+home")
    assert credentials.static_keys(home, "obs") == Keys("B", "%(x)s", "T")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[other]\naws_access_key_id = A\n",
        "[default]\naws_access_key_id = A\n",
        "[default]\ncredential_process = x\n",
    ],
)
def test_static_keys_that_are_not_there_are_none(make_home, text):
    assert credentials.static_keys(make_home(text), "default") is None


@pytest.mark.parametrize(
    "text",
    [
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
    ],
)
def test_broken_file_is_refused_without_showing_a_line_of_it(make_home, text):
    with pytest.raises(ConfigError, match=r"\.aws/credentials is not a file of AWS credentials") as caught:
        credentials.static_keys(make_home(text), "default")
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_file_that_cannot_be_read_is_refused(make_home):
    home = make_home()
    (home / ".aws" / "credentials").mkdir(parents=True)
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        credentials.static_keys(home, "default")


@hypothesis.given(
    st.one_of(st.binary(), st.text(st.sampled_from("[]=:\n aws_key")).map(lambda text: f"[default]\n{text}".encode()))
)
def test_any_file_gives_keys_nothing_or_an_error_of_ours(tmp_path_factory, data):
    home = tmp_path_factory.mktemp("home")
    (home / ".aws").mkdir()
    (home / ".aws" / "credentials").write_bytes(data)
    try:
        found = credentials.static_keys(home, "default")
    except ClouduploaderError:
        return
    assert found is None or found.access_key_id


@pytest.fixture
def make_account(tmp_path, record, monkeypatch):
    """A factory of the way into an account; the environment given is the process's as well, for boto3."""

    def make(*, environment=None, **targetdata):
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        return credentials.Account(
            home=tmp_path,
            settings=settings.Settings(session_seconds=1800),
            environment=environment or {},
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
    assert record.details[0].startswith("sts AssumeRole at http://127.0.0.1")


def test_role_without_external_id_sends_none(make_home, make_account, make_endpoint, granted):
    make_home(PLAIN)
    endpoint = make_endpoint(granted)
    make_account(environment={"AWS_ENDPOINT_URL": endpoint.url}, arn=ARN).fresh_keys()
    assert "ExternalId" not in endpoint.requests[0].form


def test_region_of_sts_can_be_set(tmp_path, make_home, make_endpoint, granted, record):
    make_home(PLAIN)
    endpoint = make_endpoint(granted)
    credentials.Account(
        home=tmp_path,
        settings=settings.Settings(sts_region="eu-central-1"),
        environment={"AWS_ENDPOINT_URL": endpoint.url},
        targetdata={"region": "ap-east-1", "arn": ARN},
        session="obs",
        reporter=record,
    ).fresh_keys()
    assert "/eu-central-1/sts/aws4_request" in str(endpoint.requests[0].headers)


@pytest.mark.parametrize("reason", ["proxy", "no static keys", "odd region"])
def test_role_is_assumed_by_boto_where_the_plain_way_does_not_do(
    make_home, make_account, make_endpoint, granted, record, reason
):
    endpoint = make_endpoint(granted)
    environment = {"AWS_ENDPOINT_URL": endpoint.url, "AWS_ENDPOINT_URL_STS": endpoint.url}
    changes = {}
    if reason == "proxy":
        make_home(PLAIN)
        environment |= {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    elif reason == "no static keys":
        environment |= {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "x"}
    else:
        make_home(PLAIN)
        changes = {"region": "us-iso-east-1"}
    found = make_account(environment=environment, arn=ARN, external_id="ext", **changes).fresh_keys()
    assert found.access_key_id == "ASIAEXAMPLE"
    assert found.expires == datetime.datetime(2026, 11, 22, 18, tzinfo=datetime.UTC)
    (request,) = endpoint.requests
    assert "Boto3" in str(request.headers)
    assert ("AKIAENV" if reason == "no static keys" else "AKIAHOME") in str(request.headers)
    assert request.form["ExternalId"] == "ext"
    assert request.form["DurationSeconds"] == "1800"
    assert "SECRET/of+role" in record.hidden


def test_refusal_by_way_of_boto_is_translated(make_account, make_endpoint, refused):
    endpoint = make_endpoint(refused("AccessDenied", status=403))
    environment = {"AWS_ENDPOINT_URL": endpoint.url, "AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "sesame"}
    with pytest.raises(CredentialsError, match=f"does not let us assume role {ARN}") as caught:
        make_account(environment=environment, arn=ARN).fresh_keys()
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


def test_role_without_anybody_who_could_ask_for_it_is_an_error(make_account):
    with pytest.raises(CredentialsError, match=f"no AWS credentials to ask for role {ARN}"):
        make_account(arn=ARN).fresh_keys()


def test_profile_that_is_not_there_is_an_error_with_its_name(tmp_path, make_home, record):
    make_home(PLAIN)
    with pytest.raises(ClouduploaderError, match="nobody"):
        credentials.Account(
            home=tmp_path,
            settings=settings.Settings(profile="nobody"),
            environment={},
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
    with pytest.raises(CredentialsError, match="there are no AWS credentials") as caught:
        make_account().fresh_keys()
    assert "--arn" in caught.value.hint


def test_half_of_the_own_credentials_is_an_error(make_account):
    with pytest.raises(CredentialsError, match="AWS_SECRET_ACCESS_KEY"):
        make_account(environment={"AWS_ACCESS_KEY_ID": "AKIAENV"}).fresh_keys()
