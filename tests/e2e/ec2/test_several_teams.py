"""The how-to "A service for several teams", followed from an empty home to the AMIs of two users."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from fakes.authority import Authority
from fakes.browser import Browser

pytestmark = pytest.mark.sandbox

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "several-teams.rst").read_text("utf-8")
ROLE = "arn:aws:iam::123456789012:role/clouduploader/clouduploader"
ASK = """
import sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {sys.argv[2]}"} if sys.argv[2] else {})
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as exc:
    print(exc.code, exc.read().decode())
"""


def words_of(command, **changes):
    """The words of the page's command that begins like this, with some of them changed."""
    (line,) = re.findall(rf"(?m)^   [#$] clouduploader ({command}.*)$", PAGE)
    return [changes.get(word, word) for word in shlex.split(line)]


@pytest.fixture
def authority(tmp_path):
    """The authority of the service's certificate."""
    return Authority(tmp_path / "pki")


@pytest.fixture
def administer(sandbox, authority, tmp_path):
    """Return a function that runs a command of the administrator's, on a home that was empty; gives its output."""
    home = tmp_path / "home"
    shutil.copytree(sandbox.home / ".aws", home / ".aws")
    block = "".join(re.findall(r"code-block:: ini\n\n((?:   .*\n)+)", PAGE))
    with_cloud = (sandbox.home / "clouduploader.conf").read_text()
    block = re.sub(r"/etc/obs/cloudupload/tls/\w+\.pem", str(authority.issue()), block)
    block = block.replace("hosts = upload.example.org", "hosts = 127.0.0.1")
    (home / "clouduploader.conf").write_text(with_cloud + textwrap.dedent(block))
    environment = sandbox.environment(CLOUDUPLOADER_HOME=str(home), CLOUDUPLOADER_SPOOL=str(tmp_path / "spool"))

    def run(*words):
        done = sandbox.run([EXECUTABLE, *words], env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.environment = environment
    return run


@pytest.fixture
def url(sandbox, administer):
    """Where the service is."""
    service = sandbox.popen(
        [EXECUTABLE, "serve", "--listen", "127.0.0.1:0"], env=administer.environment, stderr=subprocess.PIPE, text=True
    )
    line = next(line for line in service.stderr if "event=serving" in line)
    return re.search(r"url=(\S+)", line)[1]


@pytest.fixture
def be(sandbox, url, authority, tmp_path):
    """Return a function that makes a user of a token, somewhere else: a function that gives exit code and answer."""

    def make(user, token):
        home = tmp_path / user
        home.mkdir(mode=0o700)
        (home / "token").write_text(token)
        (home / "token").chmod(0o600)
        environment = sandbox.environment(CLOUDUPLOADER_HOME=str(home), CLOUDUPLOADER_SERVER=url)
        environment["CLOUDUPLOADER_CA"] = str(authority.path)
        for name in [name for name in environment if name.startswith("AWS") or name == "CLOUDUPLOADER_SPOOL"]:
            del environment[name]

        def run(*words):
            done = sandbox.run([EXECUTABLE, *words, "--json"], env=environment, cwd=sandbox.layout.root)
            assert token not in done.stdout + done.stderr
            answer = json.loads(done.stdout)
            return done.returncode, answer["data"] or answer["error"]

        return run

    return make


def test_two_teams_upload_into_their_accounts_and_see_nothing_of_each_other(
    sandbox, administer, url, be, run_aws, authority
):
    def ask(path, token=""):
        environment = sandbox.environment(SSL_CERT_FILE=str(authority.path))
        return sandbox.run([sys.executable, "-c", ASK, url + path, token], env=environment).stdout

    assert "401 a token is needed" in ask("/cloudupload")

    tokens = {}
    for user in ("tom", "anna"):
        administer(*words_of("account create", tom=user))
        script = administer(*words_of("account show", tom=user))
        role = run_aws(script.replace("--role-name clouduploader", f"--role-name clouduploader-{user}"))["Role"]
        administer(*words_of("account set", tom=user, **{ROLE: role["Arn"]}))
        assert administer(*words_of("account verify", tom=user)).count("ok ") == 3
        tokens[user] = administer(*words_of(f"token create --user {user}")).strip()
    tokens["operator"] = administer(*words_of("token create --user operator")).strip()
    watcher = administer(*words_of("token create --user prometheus")).strip()
    people = {user: be(user, token) for user, token in tokens.items()}

    image = str(sandbox.layout.root / "sample.raw.xz")
    jobs, images = {}, {}
    for user in ("tom", "anna"):
        code, answer = people[user](*words_of("submit", **{"my.raw.xz": image, "an-image": f"image-of-{user}"}))
        assert (code, answer["state"]) == (0, "succeeded"), answer
        jobs[user], images[user] = answer["job"], answer["images"]["us-east-1"]
    made = {one["id"]: one["name"] for one in sandbox.account()["images"]}
    assert made == {images["tom"]: "image-of-tom", images["anna"]: "image-of-anna"}

    for user, other in (("tom", "anna"), ("anna", "tom")):
        code, answer = people[user]("list")
        assert [(one["job"], one["user"]) for one in answer["jobs"]] == [(jobs[user], user)]
        for words in (["inspect"], ["log"], ["kill", "--yes"]):
            assert people[user](*words, jobs[other])[0] == 66
    assert {one["user"] for one in people["operator"]("list")[1]["jobs"]} == {"tom", "anna"}
    assert ask("/metrics", watcher) == "200\n"
    assert ask("/cloudupload", watcher).startswith("403 ")

    listed = administer(*words_of("token list"))
    name = tokens["tom"][5:13]
    assert re.search(rf"^{name}\ttom\tuser\t(\S+Z\t){{3}}Tom's laptop$", listed, re.MULTILINE)
    administer(*words_of("token revoke", **{"3kTq9ZbX": name}))
    assert people["tom"]("list")[0] == 77
    assert people["anna"]("list")[0] == 0


@pytest.fixture
def browser(sandbox, tmp_path):
    """A browser in the sandbox, that believes the test's own authority."""
    made = Browser(tmp_path / "chromium", "--ignore-certificate-errors", before=sandbox.enter)
    yield made
    made.close()


def picture(browser, name):
    """Take a picture of the page for the documentation, where `bin/record` wants it."""
    directory = os.environ.get("PICTURES")
    if directory:
        browser.screenshot(Path(directory) / f"{name}.png")


def press(browser, words):
    """Press the button of these words."""
    found = f"[...document.querySelectorAll('button')].find((one) => one.textContent === {json.dumps(words)})"
    browser.wait_for(f"{found} !== undefined")
    browser.value(f"{found}.click()")


def test_user_does_it_all_on_the_page(sandbox, administer, url, run_aws, browser):
    token = administer(*words_of("token create --user tom", tom="mia")).strip()
    browser.call("Emulation.setDeviceMetricsOverride", width=1024, height=760, deviceScaleFactor=1, mobile=False)
    browser.call("Page.navigate", url=f"{url}/")
    browser.wait_for("location.pathname === '/ui/sign-in' && document.getElementById('token')?.hidden === false")
    browser.type("#token-text", token)
    browser.press("Enter")
    browser.wait_for("location.pathname === '/ui' && document.getElementById('who')?.textContent === 'mia'")

    browser.call("Page.navigate", url=f"{url}/ui/accounts")
    press(browser, "Make an account for ec2")
    press(browser, "Show what to do there")
    shown = "[...document.querySelectorAll('details')].find(one => one.firstChild.textContent === 'commands')"
    browser.wait_for(f"{shown} !== undefined")
    console = "document.querySelector('a[target=_blank]').href"
    assert browser.value(console) == "https://console.aws.amazon.com/cloudformation/home#/stacks/create"
    role = run_aws(browser.value(f"{shown}.querySelector('pre').textContent"))["Role"]
    browser.type("#ec2-arn", "arn:aws:iam::1:role/x")
    browser.wait_for("document.getElementById('ec2-arn-mistake').textContent !== ''")
    browser.type("#ec2-arn", role["Arn"])
    press(browser, "Save")
    browser.wait_for("document.querySelector('form.fields .said').textContent === 'Saved.'")
    press(browser, "Verify")
    browser.wait_for("document.querySelectorAll('.findings .ok').length === 3")
    browser.value("document.getElementById('title-ec2').scrollIntoView(); scrollBy(0, -40)")
    picture(browser, "account")

    browser.call("Page.navigate", url=f"{url}/ui/upload")
    browser.wait_for("document.getElementById('target')?.length > 0")
    assert browser.value("document.getElementById('target').value") == "ec2"  # where the account is
    browser.drop("#drop", sandbox.layout.root / "sample.raw.xz")
    browser.type("#data-region", "us-east-1")
    browser.type("#data-ami_name", "image-of-mia")
    browser.value("scrollTo(0, 0)")
    picture(browser, "upload")
    browser.click("#start")
    browser.wait_for("location.pathname.startsWith('/ui/job/')")
    browser.wait_for("document.getElementById('state')?.textContent === 'succeeded'")
    (made,) = sandbox.account()["images"]
    assert made["name"] == "image-of-mia"
    assert made["id"] in browser.value("document.getElementById('reason').textContent")
    assert browser.complaints == []
