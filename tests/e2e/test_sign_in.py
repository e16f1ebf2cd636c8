"""Sign-in in a browser: by token, and with oidc-provider, a real OpenID provider."""

import datetime
import json

import pytest
from fakes import real_openid_provider

from clouduploader.model.job import JobState
from clouduploader.store.tokens import Role, TokenStore

SETTLED = "document.readyState === 'complete'"


@pytest.fixture(scope="module")
def issuer():
    with real_openid_provider.running() as found:
        yield found


@pytest.fixture
def jobs(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED, user="tom", log=b"tom's log\n")
    make_job(jobs, "2", state=JobState.FAILED, user="anna", log=b"anna's log\n")
    return jobs


@pytest.fixture
def visit(browser, serve, jobs, tmp_path, issuer):
    """The browser, without a cookie, and a server whose clients are strangers."""
    home = tmp_path / "etc" / "cloudupload"
    home.mkdir(parents=True)
    (home / "openid-secret").write_text(real_openid_provider.SECRET)
    server = serve(
        jobs,
        sign_in="token openid",
        allow="none",
        clients="127.0.0.0/8",
        openid_issuer=issuer,
        openid_client_id=real_openid_provider.CLIENT,
        openid_name="the company",
        openid_user_claim="preferred_username",
        openid_users="cloud-users",
        openid_admins="cloud-admins",
    )
    browser.call("Page.navigate", url="about:blank")
    browser.call("Network.clearBrowserCookies")
    browser.complaints.clear()
    browser.origin = "http://{}:{}".format(*server.address)
    browser.server, browser.home = server, home
    yield browser
    browser.call("Page.navigate", url="about:blank")
    # What the browser says of what is not there or not allowed, and of the font that the provider's page asks for.
    known = ("401", "404", "ERR_NAME_NOT_RESOLVED")
    assert [line for line in browser.complaints if not any(word in line for word in known)] == []


def go(browser, path):
    browser.call("Page.navigate", url=f"{browser.origin}{path}")


def is_at(browser, path):
    browser.wait_for(f"location.pathname === '{path}' && {SETTLED}")


def text(browser, query):
    return browser.value(f"document.querySelector('{query}')?.textContent")


def own_cookies(browser):
    """Those of the service: the provider's are there too, as a cookie knows no port."""
    found = browser.call("Network.getCookies", urls=[browser.origin])["cookies"]
    return [cookie for cookie in found if cookie["name"].startswith("clouduploader")]


def names(browser):
    return browser.value("[...document.querySelectorAll('#jobs a')].map(a => a.textContent)")


def sign_in_at_provider(browser, name):
    """Do there what a user does: say who one is, and agree."""
    browser.wait_for("document.querySelector('[name=login]') !== null")
    browser.value(
        f"document.querySelector('[name=login]').value = '{name}';"
        "document.querySelector('[name=password]').value = 'x'; document.querySelector('form').submit()"
    )
    browser.wait_for(f"!document.querySelector('[name=login]') && document.querySelector('form') !== null && {SETTLED}")
    browser.value("document.querySelector('form').submit()")
    browser.wait_for(f"location.origin === '{browser.origin}' && {SETTLED}")


def test_user_signs_in_with_the_provider_and_out(visit):
    go(visit, "/ui/job/1")
    is_at(visit, "/ui/sign-in")
    visit.wait_for("document.getElementById('openid-link')?.textContent === 'Sign in with the company'")
    visit.value("document.getElementById('openid-link').click()")
    sign_in_at_provider(visit, "tom")
    is_at(visit, "/ui/job/1")
    visit.wait_for("document.getElementById('log')?.textContent === \"tom's log\\n\"")
    visit.wait_for("document.getElementById('who')?.textContent.startsWith('tom')")
    go(visit, "/ui/job/2")
    visit.wait_for("document.getElementById('status')?.textContent.startsWith('There is no such job.')")
    go(visit, "/ui")
    visit.wait_for("document.querySelectorAll('#jobs tr').length === 1")
    assert names(visit) == ["1"]
    (cookie,) = own_cookies(visit)
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["session"]) == (True, "Lax", True)
    visit.value("document.querySelector('#nav button').click()")
    is_at(visit, "/ui/sign-in")
    assert own_cookies(visit) == []
    go(visit, "/ui")
    is_at(visit, "/ui/sign-in")


def test_admin_of_the_provider_sees_all(visit):
    go(visit, "/ui/openid")
    sign_in_at_provider(visit, "olga")
    is_at(visit, "/ui")
    visit.wait_for("document.querySelectorAll('#jobs tr').length === 2")
    visit.wait_for("document.getElementById('who')?.textContent.startsWith('olga (admin)')")


def test_account_without_a_group_is_turned_away(visit):
    go(visit, "/ui/openid")
    sign_in_at_provider(visit, "eve")
    is_at(visit, "/ui/sign-in")
    visit.wait_for("document.getElementById('problem')?.textContent.includes('at the provider is none here')")
    go(visit, "/ui")
    is_at(visit, "/ui/sign-in")


def test_user_signs_in_by_token(visit):
    now = datetime.datetime.now(datetime.UTC)
    stored, token = TokenStore(visit.home).create("anna", Role.USER, note="", expires=None, now=now)
    go(visit, "/ui")
    is_at(visit, "/ui/sign-in")
    visit.wait_for("document.getElementById('token')?.hidden === false")

    def enter(word):
        visit.value(f"document.getElementById('token-text').value = {json.dumps(word)}")
        visit.value("document.querySelector('#token button').click()")

    enter(f"{token[:-2]}xx")
    visit.wait_for("document.getElementById('problem')?.textContent.includes('wrong')")
    enter(token)
    is_at(visit, "/ui")
    visit.wait_for("document.querySelectorAll('#jobs tr').length === 1")
    assert names(visit) == ["2"]
    TokenStore(visit.home).remove(stored.id)
    is_at(visit, "/ui/sign-in")  # by itself: the list asks again


def test_hostile_words_in_the_address_of_sign_in_are_not_shown(visit):
    go(visit, "/ui/sign-in?problem=Call+555&next=https://evil.example")
    visit.wait_for("document.getElementById('token')?.hidden === false")
    assert text(visit, "#problem") == ""
    assert visit.value("document.getElementById('openid-link').getAttribute('href')") == "/ui/openid?next=%2Fui"
    go(visit, "/ui/sign-in?problem=constructor")
    visit.wait_for("document.getElementById('token')?.hidden === false")
    assert text(visit, "#problem") == ""
