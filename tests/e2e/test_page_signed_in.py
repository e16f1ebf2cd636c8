"""The page of users who have signed in: their whole way, an administrator's, and what a stranger sees."""

import datetime
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import accessibility, cluster_site
from fakes.browser import EMPTY_PAGE, PATIENCE_SECONDS
from fakes.waiting import wait_for
from samples.minimal_disk import as_disk

from clouduploader.cluster.dispatch.hosts import Greeting
from clouduploader.model.job import JobState
from clouduploader.store.spool import Spool, leases
from clouduploader.store.tokens import Role, TokenStore

PROGRAM = Path(sys.executable).with_name("clouduploader")
PAGES = (("/ui", "#jobs tr"), ("/ui/job/1001", "#state"), ("/ui/upload", ".field"), ("/ui/accounts", ".account"),
         ("/ui/tokens", "#tokens tr"), ("/ui/service", "#users tr"))  # fmt: skip
"""Of those who have signed in, and what is there when they are ready."""
SETTINGS = """
[server]
listen = 127.0.0.1:0
sign_in = token
allow = none
clients = 127.0.0.0/8
keep_free = 1
[directory]
path = {place}/images
"""


class Service:
    """`clouduploader serve`, whose cloud is a directory."""

    def __init__(self, place):
        self.place, self.home, self.spool = place, place / "home", place / "bs" / "cloudupload"
        self.images = place / "images"
        for path in (self.home, self.spool.parent, self.images):
            path.mkdir()
        (self.home / "clouduploader.conf").write_text(SETTINGS.format(place=place))
        subprocess.run([PROGRAM, "--home", self.home, "keygen", "--rsa"], check=True, capture_output=True)
        self.log = place / "service.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "--home", self.home, "--spool", self.spool, "serve"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (found := re.search(r"event=serving url=(\S+)", self.log.read_text())):
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        self.url = found[1]

    def token(self, user, role=Role.USER):
        now = datetime.datetime.now(datetime.UTC)
        return TokenStore(self.home).create(user, role, note="", expires=None, now=now)[1]

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = Service(tmp_path_factory.mktemp("service"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def axe():
    return accessibility.axe()


@pytest.fixture
def browser(browser, service):
    """The browser, signed out."""
    browser.call("Page.navigate", url=EMPTY_PAGE)
    browser.call("Network.clearBrowserCookies")
    browser.complaints.clear()
    yield browser
    browser.call("Page.navigate", url=EMPTY_PAGE)
    assert [line for line in browser.complaints if "401" not in line and "404" not in line] == []


def go(browser, service, path):
    browser.call("Page.navigate", url=f"{service.url}{path}")
    browser.wait_for(
        f"location.pathname === {json.dumps(path.partition('?')[0])} && document.readyState === 'complete'"
    )


def sign_in(browser, service, user, role=Role.USER):
    browser.call("Page.navigate", url=f"{service.url}/ui")
    browser.wait_for("location.pathname === '/ui/sign-in' && document.getElementById('token')?.hidden === false")
    browser.type("#token-text", service.token(user, role))
    browser.press("Enter")
    browser.wait_for("location.pathname === '/ui' && document.getElementById('who')?.textContent.length > 0")


def text(browser, query):
    return browser.value(f"document.querySelector({json.dumps(query)})?.textContent")


def wait_for_text(browser, query, part):
    browser.wait_for(f"document.querySelector({json.dumps(query)})?.textContent.includes({json.dumps(part)})")


def test_user_drags_an_image_in_and_watches_it(browser, service, tmp_path):
    image = tmp_path / "small <b>.raw"
    image.write_bytes(as_disk(os.urandom(3_000_000)))
    sign_in(browser, service, "tom")
    browser.value("[...document.querySelectorAll('#nav a')].find(a => a.textContent === 'Upload').click()")
    wait_for_text(browser, "#target", "directory")
    browser.value("document.querySelector('#target').value = 'directory'")
    browser.value("document.querySelector('#target').dispatchEvent(new Event('change'))")
    browser.drop("#drop", image)
    wait_for_text(browser, "#chosen", "small <b>.raw")
    browser.value("document.getElementById('more').open = true")
    browser.type("#data-sha256", "no digest")
    wait_for_text(browser, "#data-sha256-mistake", "64 hexadecimal digits")
    assert browser.value("document.getElementById('data-sha256').getAttribute('aria-invalid')") == "true"
    browser.click("#start")
    assert browser.value("document.activeElement.id") == "data-sha256"
    browser.type("#data-sha256", "")
    assert text(browser, "#data-sha256-mistake") == ""
    browser.click("#start")
    browser.wait_for("location.pathname.startsWith('/ui/job/')")
    wait_for_text(browser, "#state", "succeeded")
    wait_for_text(browser, "#log", "small")
    (made,) = service.images.rglob("*.raw")
    assert made.read_bytes() == image.read_bytes()


def test_user_kills_and_retries_jobs_and_follows_their_logs(browser, service, make_job):
    jobs = Spool(service.spool)
    make_job(jobs, "2001", state=JobState.WAITING, user="kate", target="none", details="later", log=b"one\n", try_=9)
    make_job(jobs, "2002", state=JobState.CREATED, user="kate", log=b"begun\n")
    sign_in(browser, service, "kate")
    browser.wait_for("document.querySelectorAll('#jobs tr').length === 2")
    go(browser, service, "/ui/job/2002")
    wait_for_text(browser, "#log", "begun")
    with jobs.log_path("2002").open("a") as log:
        log.write("<b>more</b>\n")
    wait_for_text(browser, "#log", "<b>more</b>")
    browser.value("document.getElementById('kill').focus()")
    browser.press("Enter")
    wait_for_text(browser, "#sure-title", "Kill job 2002?")
    assert browser.value("document.activeElement.textContent") == "Leave it"
    browser.press("Escape")
    browser.wait_for("document.querySelector('dialog') === null")
    assert jobs.read("2002")[0].state is JobState.CREATED
    browser.press("Enter")
    browser.wait_for("document.querySelector('dialog') !== null")
    browser.click("dialog [value=yes]")
    wait_for_text(browser, "#done", "It was killed.")
    wait_for_text(browser, "#state", "failed")
    browser.wait_for("document.getElementById('kill').hidden")
    assert jobs.read("2002")[0].details == "killed"
    go(browser, service, "/ui/job/2001")
    browser.wait_for("document.getElementById('retry')?.hidden === false && !document.getElementById('actions').hidden")
    browser.click("#retry")
    wait_for_text(browser, "#done", "It is tried again.")


LINE = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1, "offline": False}


def pause_upload(browser, service, image):
    """Begin to upload an image over a slow line, and pause in the middle."""
    go(browser, service, "/ui/upload")
    wait_for_text(browser, "#target", "directory")
    browser.value("document.querySelector('#target').value = 'directory'")
    browser.value("document.querySelector('#target').dispatchEvent(new Event('change'))")
    browser.drop("#drop", image)
    browser.call("Network.emulateNetworkConditions", **LINE | {"uploadThroughput": 5_000_000})
    browser.click("#start")
    browser.wait_for("document.getElementById('sent').value >= 20")
    browser.click("#pause")
    wait_for_text(browser, "#sent-text", "Paused")
    browser.call("Network.emulateNetworkConditions", **LINE)


def test_upload_goes_on_where_it_was(browser, service, tmp_path):
    image = tmp_path / "large.raw"
    image.write_bytes(as_disk(os.urandom(30_000_000)))
    sign_in(browser, service, "uma")
    pause_upload(browser, service, image)
    browser.call("Network.emulateNetworkConditions", **LINE | {"offline": True})
    browser.click("#start")
    wait_for_text(browser, "#sent-text", "It goes on by itself")
    browser.call("Network.emulateNetworkConditions", **LINE)
    browser.complaints.clear()
    browser.wait_for("location.pathname.startsWith('/ui/job/')")
    wait_for_text(browser, "#state", "succeeded")
    made = next(path for path in service.images.rglob("large.raw"))
    assert made.read_bytes() == image.read_bytes()
    assert len(re.findall(r"event=begun image=\S+ user=uma", service.log.read_text())) == 1


def test_image_that_was_left_is_shown_and_can_be_removed(browser, service, tmp_path):
    image = tmp_path / "left.raw"
    image.write_bytes(as_disk(os.urandom(30_000_000)))
    sign_in(browser, service, "lea")
    pause_upload(browser, service, image)
    go(browser, service, "/ui/upload")
    wait_for_text(browser, "#images", "left.raw")
    browser.click("#images button")
    browser.wait_for("document.getElementById('unfinished').hidden")


def press(browser, words):
    """Press the button of these words."""
    found = f"[...document.querySelectorAll('button')].find((one) => one.textContent === {json.dumps(words)})"
    browser.wait_for(f"{found} !== undefined")
    browser.value(f"{found}.click()")


def test_user_makes_fills_and_forgets_an_account(browser, service, tmp_path):
    sign_in(browser, service, "ida")
    go(browser, service, "/ui/accounts")
    press(browser, "Make an account for openstack")
    browser.wait_for("document.activeElement.id === 'title-openstack'")
    browser.value("document.querySelector('[value=members]').click()")
    press(browser, "Show what to do there")
    browser.wait_for("document.querySelector('summary')?.textContent === 'commands'")
    assert browser.value("document.querySelector('summary').parentNode.textContent.includes('/members')")
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.value("document.querySelector('details').open = true")
    browser.click("a[download]")
    script, loaded = (
        browser.value("document.querySelector('details pre').textContent"),
        tmp_path / "openstack-commands.sh",
    )
    wait_for(lambda: loaded.exists() and loaded.read_text() == script)
    browser.type("#openstack-application_credential_id", "no id!")
    wait_for_text(browser, "#openstack-application_credential_id-mistake", "letters, digits and _.-")
    browser.type("#openstack-application_credential_id", "4711")
    browser.type("#openstack-application_credential_secret", "a secret of mine")
    browser.type("#openstack-auth_url", "http://127.0.0.1:9/v3")
    press(browser, "Save")
    browser.wait_for("document.querySelector('form.fields .said').textContent === 'Saved.'")
    press(browser, "Verify")
    browser.wait_for("document.body.textContent.includes('That was not possible: ')")
    browser.complaints.clear()
    go(browser, service, "/ui/accounts")
    browser.wait_for("document.getElementById('openstack-application_credential_id')?.value === '4711'")
    secret = "document.getElementById('openstack-application_credential_secret')"
    assert browser.value(f"[{secret}.type, {secret}.value, {secret}.placeholder]") == [
        "password", "", "kept, and not shown",
    ]  # fmt: skip
    assert b"a secret of mine" not in b"".join(path.read_bytes() for path in service.home.rglob("*.sqlite"))
    press(browser, "Forget this account")
    press(browser, "Forget it")
    press(browser, "Make an account for openstack")


def test_user_makes_and_revokes_a_token(browser, service):
    sign_in(browser, service, "ute")
    go(browser, service, "/ui/tokens")
    browser.wait_for("document.querySelectorAll('#tokens tr').length === 1")
    assert browser.value("[...document.querySelectorAll('.admin')].every((one) => one.hidden)")
    browser.type("#note", "<i>nightly</i>")
    browser.press("Enter")
    browser.wait_for("document.querySelectorAll('#tokens tr').length === 2")
    made = browser.value("document.getElementById('text').value")
    assert made.startswith("clup_")
    assert text(browser, "#ends") == "It ends in 3 months."
    assert (
        browser.value("[...document.querySelectorAll('#tokens tr')].at(-1).children[0].textContent") == "<i>nightly</i>"
    )
    ask = f"fetch('/api/v1/me', {{headers: {{Authorization: 'Bearer {made}'}}}}).then(answer => answer.status)"
    assert browser.value(ask) == 200
    browser.value("document.querySelectorAll('#tokens button')[1].click()")
    browser.wait_for("document.querySelector('dialog') !== null")
    browser.click("dialog [value=yes]")
    browser.wait_for("document.querySelectorAll('#tokens tr').length === 1")
    assert browser.value(ask) == 401
    go(browser, service, "/ui/tokens")
    browser.wait_for("document.querySelectorAll('#tokens tr').length === 1")
    assert made not in browser.value("document.documentElement.outerHTML")


def test_admin_sees_service_users_and_all_jobs(browser, service, make_job):
    jobs = Spool(service.spool)
    make_job(jobs, "4001", state=JobState.WAITING, user="first", details="later", try_=9, size=1 << 20)
    make_job(jobs, "4002", state=JobState.FAILED, user="second", details="no")
    sign_in(browser, service, "olga", Role.ADMIN)
    browser.wait_for("document.querySelectorAll('#jobs tr').length >= 2")
    go(browser, service, "/ui/service")
    browser.wait_for("document.querySelectorAll('#users tr').length > 1")
    shown = text(browser, "#main")
    for part in ("1 waiting", "clouduploader 0.", "Free disk", "first", "1.0 MiB"):
        assert part in shown
    browser.value("[...document.querySelectorAll('#users a')].find(a => a.textContent === 'first').click()")
    browser.wait_for("location.search === '?user=first' && document.querySelectorAll('#jobs tr').length === 1")
    go(browser, service, "/ui/job/4001")
    browser.wait_for("document.getElementById('actions')?.hidden === false")
    browser.click("#kill")
    browser.click("dialog [value=yes]")
    wait_for_text(browser, "#state", "failed")
    go(browser, service, "/ui/tokens")
    browser.wait_for("document.getElementById('role')?.offsetParent !== null")
    browser.type("#note", "scraper")
    browser.type("#user", "prometheus")
    browser.value("document.getElementById('role').value = 'worker'")
    press(browser, "Make it")
    browser.wait_for(
        "[...document.querySelectorAll('#tokens tr')].some(row => row.textContent.includes('prometheusworker'))"
    )
    go(browser, service, "/ui/accounts")
    browser.type("#whose input", "second")
    browser.press("Enter")
    browser.wait_for(
        "location.search === '?user=second' && document.getElementById('status').textContent === 'of second'"
    )


@pytest.fixture
def site(make_spool, make_job, tmp_path):
    """A server's side of a cluster, with two hosts, of which one has a job."""
    made = cluster_site.Site(make_spool(), tmp_path, make_job)
    for name in ("ada", "bob"):
        made.hosts.greet(Greeting(name=name, protocol=1, version="1", slots=2, queues=("uploads",), clock=time.time()))
    made.hosts.drain("bob", is_draining=True)
    made.make(state=JobState.UPLOADING)
    lease = {"claim": "0" * 64, "journal": "f" * 32, "queue": "uploads", "since": time.time()}
    leases.write(made.jobs, "7", leases.LeaseRecord(attempt=1, state=leases.LeaseState.CLAIMED, host="ada", **lease))
    made.restart()
    yield made
    made.leases.close()


def test_admin_sees_upload_hosts_and_which_job_they_have(browser, site, serve, tmp_path):
    host, port = serve(site.jobs, cluster=site.parts(), sign_in="token", allow="none", clients="127.0.0.0/8").address
    url, now = f"http://{host}:{port}", datetime.datetime.now(datetime.UTC)
    browser.call("Page.navigate", url=f"{url}/ui")
    browser.wait_for("document.getElementById('token')?.hidden === false")
    browser.type(
        "#token-text",
        TokenStore(tmp_path / "etc/cloudupload").create("olga", Role.ADMIN, note="", expires=None, now=now)[1],
    )
    browser.press("Enter")
    browser.wait_for("location.pathname === '/ui' && document.getElementById('who')?.textContent.length > 0")
    browser.call("Page.navigate", url=f"{url}/ui/service")
    browser.wait_for("document.querySelectorAll('#hosts tr').length === 2")
    rows = browser.value("[...document.querySelectorAll('#hosts tr')].map(row => row.innerText)")
    assert [row.split()[:2] for row in rows] == [["ada", "ready"], ["bob", "draining"]]
    browser.value("document.querySelector('#hosts a').click()")
    browser.wait_for("location.pathname === '/ui/job/7'")
    wait_for_text(browser, "#fields", "ada, attempt 1")


def test_user_is_refused_the_pages_of_admins(browser, service):
    sign_in(browser, service, "nina")
    assert "Service" not in text(browser, "#nav")
    assert browser.value("fetch('/ui/service').then(answer => answer.status)") == 403
    browser.complaints.clear()


def test_stranger_sees_no_job_and_is_led_to_sign_in(browser, service):
    for path in ("/ui", "/ui/job/1", "/ui/upload", "/ui/accounts", "/ui/tokens", "/ui/service"):
        browser.call("Page.navigate", url=f"{service.url}{path}")
        browser.wait_for("location.pathname === '/ui/sign-in' && document.getElementById('token')?.hidden === false")
        assert "tom" not in browser.value("document.documentElement.textContent")
    assert browser.value("fetch('/api/v1/jobs').then(answer => answer.status)") == 401
    assert browser.value("fetch('/api/v1/jobs', {method: 'POST', body: '{}'}).then(answer => answer.status)") == 403
    browser.complaints.clear()


def test_page_of_another_users_job_says_nothing_of_it(browser, service, make_job):
    make_job(Spool(service.spool), "3001", state=JobState.FAILED, user="other", log=b"secret words\n")
    sign_in(browser, service, "mia")
    go(browser, service, "/ui/job/3001")
    wait_for_text(browser, "#status", "There is no such job.")
    assert "secret" not in browser.value("document.documentElement.textContent")


def test_many_jobs_and_long_logs_stay_quick(browser, service, make_job):
    jobs = Spool(service.spool)
    for number in range(500):
        make_job(jobs, str(5000 + number), state=JobState.FAILED, user="max", details="no room", package="x" * 40)
    lines = "".join(f"12:00:00 line {number} of a log that is long\n" for number in range(20_000))
    make_job(jobs, "5500", state=JobState.FAILED, user="max", log=lines.encode())
    sign_in(browser, service, "max")
    browser.wait_for("document.querySelectorAll('#jobs tr').length === 50")
    for shown in range(100, 501, 50):
        browser.value("document.getElementById('more').click()")
        browser.wait_for(f"document.querySelectorAll('#jobs tr').length === {shown}")
    go(browser, service, "/ui/job/5500")
    wait_for_text(browser, "#log", "line 19999 of")
    browser.type("#log-words", "line 199")
    wait_for_text(browser, "#hits", "1 of ")
    assert browser.value("document.querySelectorAll('#log *').length") == 0  # one text, however long


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_keep_no_user_out(browser, service, make_job, axe, scheme):
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    go(browser, service, "/ui/sign-in")
    browser.wait_for("document.getElementById('token')?.hidden === false")
    assert accessibility.mistakes(browser, axe) == []
    sign_in(browser, service, "anna", Role.ADMIN)
    make_job(
        Spool(service.spool), "1001", state=JobState.WAITING, user="anna", log=b"a line\n", details="later", try_=9
    )
    browser.value(
        "import('/ui/files/base.js').then(async (base) => { await base.readSession();"
        " await base.change('POST', '/accounts', {target: 'azure'}).catch(() => {}); })"
    )
    for path, is_there in PAGES:
        go(browser, service, path)
        browser.wait_for(f"document.querySelector({json.dumps(is_there)})?.textContent")
        browser.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert accessibility.mistakes(browser, axe) == [], path
    go(browser, service, "/ui/job/1001")
    browser.wait_for("document.getElementById('actions')?.hidden === false")
    browser.click("#kill")
    browser.wait_for("document.querySelector('dialog') !== null")
    assert accessibility.mistakes(browser, axe) == []
    browser.complaints.clear()
    browser.call("Emulation.setEmulatedMedia", features=[])


def test_pages_fit_a_narrow_screen(browser, service, make_job):
    make_job(Spool(service.spool), "1002", state=JobState.FAILED, user="u" * 200, details="d" * 300, package="p" * 200)
    sign_in(browser, service, "u" * 200, Role.ADMIN)
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **screen)
    for path, is_there in [*PAGES, ("/ui/job/1002", "#reason")]:
        go(browser, service, path)
        browser.wait_for(f"document.querySelector({json.dumps(is_there)})?.textContent")
        browser.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert browser.value("document.documentElement.scrollWidth") <= 390, path
    browser.call("Emulation.clearDeviceMetricsOverride")


def test_upload_can_be_done_with_the_keyboard_alone(browser, service):
    sign_in(browser, service, "kim")
    go(browser, service, "/ui/upload")
    wait_for_text(browser, "#target", "directory")
    reached = []
    for _ in range(40):
        browser.press("Tab")
        reached.append(browser.value("document.activeElement.id || document.activeElement.textContent"))
        if reached[-1] == "start":
            break
    order = ["Jobs", "Upload", "Accounts", "Tokens", "Sign out", "file", "target"]
    assert reached[: len(order)] == order
    assert reached[-2:] == ["More settings", "start"]
