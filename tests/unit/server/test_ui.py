"""The page, as a browser shows it, with jobs and logs of people who mean no good."""

import pytest
from browser import Browser

from clouduploader.job import JobState

HOSTILE = "<img src=x onerror=\"document.title='owned'\">\u202emoc.live"
HOSTILE_LOG = "<script>document.title='owned'</script>\n</pre><b>bold</b>\n\x1b[31mred\x00 \u202ereverse\n"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser, serve, make_spool, make_job):
    """The browser with the page open, and the spool that it shows."""
    jobs = make_spool()
    make_job(jobs, "7", state=JobState.UPLOADING, user=HOSTILE, filename=HOSTILE, progress=40, log=HOSTILE_LOG.encode())
    make_job(jobs, "8", state=JobState.SCHEDULED, user="tom")
    make_job(jobs, "9", state=JobState.SUCCEEDED, user="ann", details="ami-0123456789abcdef0", log=b"Done.\n")
    server = serve(jobs)
    browser.requested.clear()
    browser.complaints.clear()
    browser.call("Page.navigate", url="about:blank")
    browser.call("Page.navigate", url="http://{}:{}/ui".format(*server.address))
    browser.wait_for("document.querySelectorAll('#jobs tr').length === 3")
    yield browser, jobs
    assert browser.complaints == []
    origin = "http://{}:{}/".format(*server.address)
    assert [url for url in browser.requested if not url.startswith((origin, "data:", "about:"))] == []
    browser.call("Page.navigate", url="about:blank")  # lets go of the server


def test_jobs_are_shown_newest_first_with_progress(page):
    browser, _ = page
    assert browser.value("[...document.querySelectorAll('#jobs a')].map(a => a.textContent)") == ["9", "8", "7"]
    assert browser.value("[...document.querySelectorAll('.state')].map(s => s.textContent)") == [
        "succeeded", "scheduled", "uploading",
    ]  # fmt: skip
    assert browser.value("[...document.querySelectorAll('progress')].map(p => [p.value, p.ariaLabel])") == [
        [40, "progress of job 7"]
    ]
    assert browser.value("document.getElementById('status').textContent") == "3 jobs, 1 uploading"


def test_names_and_logs_of_strangers_stay_text(page):
    browser, _ = page
    browser.value("location.hash = '#7'")
    browser.wait_for("document.getElementById('log').textContent.includes('reverse')")
    escapes = {"\u202e": "\\u202e", "\x1b": "\\u001b", "\x00": "\\u0000"}
    assert browser.value("document.getElementById('log').textContent") == HOSTILE_LOG.translate(str.maketrans(escapes))
    assert browser.value("document.querySelector('#jobs tr:last-child .user').textContent") == HOSTILE.replace(
        "\u202e", "\\u202e"
    )
    assert browser.value("[...document.querySelectorAll('#fields dt')].map(t => t.textContent)") == [
        "State", "Progress", "User", "Target", "Image", "Created",
    ]  # fmt: skip
    assert browser.value("document.querySelectorAll('img, b, main script').length") == 0
    assert browser.value("getComputedStyle(document.querySelector('.user')).unicodeBidi") == "isolate"
    assert browser.value("document.title") == "Cloud uploads"


def test_policy_stops_what_gets_into_the_page_all_the_same(page):
    browser, _ = page
    browser.value(
        "new Promise(done => { document.addEventListener('securitypolicyviolation', done, {once: true});"
        " const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s); })"
    )
    assert browser.value("document.title") == "Cloud uploads"
    browser.value("fetch('http://127.0.0.1:1/').catch(() => 0)")
    assert any(text.startswith("Executing inline script violates") for text in browser.complaints)
    assert any("http://127.0.0.1:1/" in text for text in browser.complaints)
    assert all("Content Security Policy" in text for text in browser.complaints)
    browser.complaints.clear()
    browser.requested.clear()


def test_log_is_followed_to_the_end_of_the_job(page):
    browser, jobs = page
    browser.value("location.hash = '#7'")
    browser.wait_for("document.getElementById('log').textContent.includes('reverse')")
    with jobs.log_path("7").open("ab") as log:
        log.write("Phase: upload \u00e4".encode()[:-1])
        log.flush()
        browser.wait_for("document.getElementById('log').textContent.includes('Phase')")
        log.write("\u00e4\n".encode()[1:])
    browser.wait_for("document.getElementById('log').textContent.endsWith('upload \u00e4\\n')")
    with jobs.lock("7") as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    browser.wait_for("[...document.querySelectorAll('#fields dd')].some(d => d.textContent === 'killed')")
    with jobs.done_log_path("7").open("ab") as log:
        log.write(b"Removed volume vol-1.\n")
    browser.wait_for("document.getElementById('log').textContent.includes('vol-1')")


def test_keyboard_opens_and_closes_a_job(page):
    browser, _ = page
    browser.value("document.querySelector('#jobs a').focus()")
    browser.press("Enter")
    browser.wait_for("document.getElementById('log').textContent === 'Done.\\n'")
    assert browser.value("document.activeElement.id") == "job-title"
    assert browser.value("document.querySelectorAll('tr[aria-current]').length") == 1
    browser.press("Escape")
    browser.wait_for("document.getElementById('job').hidden")
    assert browser.value("document.activeElement.textContent") == "9"
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "checkbox", "link", "searchbox", "table", "progressbar"}
    found = [node for node in nodes if node.get("role", {}).get("value") in roles]
    assert {node["role"]["value"] for node in found} >= roles - {"button"}
    assert [node for node in found if not node["name"]["value"]] == []


def test_jobs_can_be_searched_for(page):
    browser, _ = page
    browser.value("const w = document.getElementById('words'); w.value = 'ann 9'; w.dispatchEvent(new Event('input'))")
    assert browser.value("[...document.querySelectorAll('#jobs a')].map(a => a.textContent)") == ["9"]
    browser.value("document.getElementById('words').value = ''; document.getElementById('unfinished').click()")
    assert browser.value("[...document.querySelectorAll('#jobs a')].map(a => a.textContent)") == ["8", "7"]


def test_dark_and_light_are_honoured(page):
    browser, _ = page
    shades = []
    for scheme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        shades.append(browser.value("getComputedStyle(document.body).backgroundColor"))
    browser.call("Emulation.setEmulatedMedia", features=[])
    assert shades == ["rgb(255, 255, 255)", "rgb(21, 24, 28)"]


def test_a_lost_server_is_told_of(page, browser):
    line = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.call("Network.emulateNetworkConditions", offline=True, **line)
    browser.wait_for("document.getElementById('status').textContent.includes('Trying again')")
    browser.call("Network.emulateNetworkConditions", offline=False, **line)
    browser.wait_for("document.getElementById('status').textContent === '3 jobs, 1 uploading'")
    browser.complaints.clear()
