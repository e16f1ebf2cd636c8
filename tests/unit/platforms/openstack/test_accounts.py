import json
import shlex

import pytest
from fakes.openstack_cloud import LEAST_RULES, fault

from clouduploader.errors import DataError, TargetDataError, TransientError
from clouduploader.plugin import Level
from clouduploader.plugin.testing import RecordingReporter


@pytest.fixture
def accounts(make_platform):
    return make_platform().accounts


@pytest.fixture
def values(targetdata):
    return {name: value for name, value in targetdata.items() if name not in ("region", "image_name")}


def verify(accounts, values):
    return accounts.verify(values, reporter=RecordingReporter())


def test_least_rights_are_usable_without_a_word_of_warning(accounts, values):
    found = verify(accounts, values)
    assert (found.is_usable, found.is_open) == (True, False)
    assert [(finding.level, finding.subject) for finding in found.findings] == [
        (Level.OK, "credential credential-1"),
        (Level.OK, "region RegionOne"),
        (Level.OK, "region RegionTwo"),
    ]
    assert "project tom-project, roles reader, member" in found.findings[0].message


def test_rights_that_are_too_wide_are_named(accounts, values, cloud):
    cloud.rules, cloud.roles, cloud.is_restricted = None, ["member", "admin"], False
    found = verify(accounts, values)
    assert found.is_usable
    warnings = [finding.message for finding in found.findings if finding.level is Level.WARNING]
    assert warnings == [
        "has the role admin, and member is enough",
        "is unrestricted: it can make further credentials",
        "has no access rules: it may do more than upload images",
    ]


def test_host_that_a_user_names_is_asked_by_https_alone(make_platform, values):
    """By http are the servers that trust this machine, such as this service, which would kill a job for it."""
    with pytest.raises(TargetDataError, match="is asked by http, so that"):
        verify(make_platform(auth_hosts="*").accounts, values)
    with pytest.raises(TargetDataError, match="this service does not upload to"):
        verify(make_platform(auth_hosts="").accounts, values)


def test_credential_that_is_not_accepted_is_not_usable(accounts, values):
    found = verify(accounts, {**values, "application_credential_secret": "something else"})
    assert not found.is_usable
    assert found.findings[0].level is Level.FAILURE
    assert "requires authentication" in found.findings[0].message


@pytest.mark.parametrize("rule", LEAST_RULES, ids=" ".join)
def test_rule_that_is_missing_makes_it_unusable(accounts, values, cloud, rule):
    cloud.rules.remove(rule)
    found = verify(accounts, values)
    assert not found.is_usable
    assert found.findings[1].message == f"has no access rules for {' '.join(rule)}"


@pytest.mark.parametrize(
    ("rules", "is_usable"),
    [
        ([("GET", "/v2/images"), ("GET", "/v2/images/{id}")], True),
        ([("GET", "/v2/**")], True),
        ([("GET", "/v2/*")], False),
        ([("GET", "/v2/images"), ("GET", "/v2/images.x")], False),
    ],
)
def test_rules_count_as_keystone_reads_them(accounts, values, cloud, rules, is_usable):
    cloud.rules = [*(rule for rule in LEAST_RULES if rule[0] != "GET"), *rules]
    assert verify(accounts, values).is_usable is is_usable


def test_role_that_makes_no_images_makes_it_unusable(accounts, values, cloud):
    cloud.roles = ["reader"]
    found = verify(accounts, values)
    assert not found.is_usable
    assert found.findings[1].message == "has the role reader only, which makes no images"


def test_cloud_without_an_image_service_is_not_usable(accounts, values, cloud):
    cloud.catalog_type = "object-store"
    found = verify(accounts, values)
    assert not found.is_usable
    assert found.findings[-1].message == "shows no image service in any region"


def test_what_could_not_be_tried_is_an_error(accounts, values, cloud):
    cloud.faults.append(fault("POST", ".*/auth/tokens", refuse=503, times=1000))
    with pytest.raises(TransientError):
        verify(accounts, values)
    cloud.faults = [fault("GET", "/image/.*", refuse=503, times=1000)]
    with pytest.raises(TransientError):
        verify(accounts, values)


@pytest.mark.parametrize("name", ["application_credential_id", "application_credential_secret"])
def test_account_that_is_not_complete_is_refused(accounts, values, name):
    del values[name]
    with pytest.raises(DataError, match=f"has no {name} yet"):
        verify(accounts, values)


def test_account_without_a_cloud_is_refused(accounts, values):
    del values["auth_url"]
    with pytest.raises(DataError, match="cloud is missing, or auth_url"):
        verify(accounts, values)


def test_guide_has_the_rules_that_an_upload_needs(accounts):
    guide = accounts.guide({"cloud": "mine"}, extras=(), reporter=RecordingReporter())
    rules = guide.policies["access_rules"]
    assert [(rule["method"], rule["path"]) for rule in rules] == list(LEAST_RULES)
    assert guide.facts == {"role": "member", "cloud": "mine"}
    words = shlex.split(guide.scripts["commands"])
    assert json.loads(words[words.index("--access-rules") + 1]) == rules


def test_extras_add_rules(accounts):
    guide = accounts.guide({}, extras=("members", "staging"), reporter=RecordingReporter())
    paths = [(rule["method"], rule["path"]) for rule in guide.policies["access_rules"]]
    assert paths[len(LEAST_RULES) :] == [
        ("POST", "/v2/images/*/members"),
        ("GET", "/v2/images/*/members"),
        ("PUT", "/v2/images/*/stage"),
        ("POST", "/v2/images/*/import"),
    ]
