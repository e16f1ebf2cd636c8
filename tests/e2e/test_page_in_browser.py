"""The page, as a browser shows it, with hostile jobs and logs."""

import re
import time

import pytest

from clouduploader.model.job import JobState

HOSTILE = "<img src=x onerror=\"document.title='owned'\">\u202emoc.live"
IS_LOADED = "document.getElementById('status') && !document.getElementById('status').textContent.includes('Loading')"
HOSTILE_LOG = "<script>document.title='owned'</script>\n</pre><b>bold</b>\n\x1b[31mred\x00 \u202ereverse\n"


@pytest.fixture
def page(browser, serve, make_spool, make_job):
    """The browser with the list open, and the spool that it shows."""
    jobs = make_spool()
    now = int(time.time())
    make_job(jobs, "7", state=JobState.UPLOADING, user=HOSTILE, filename=HOSTILE, progress=40, log=HOSTILE_LOG.encode())
    make_job(jobs, "8", state=JobState.SCHEDULED, user="tom", created=now - 3 * 3600 - 100)
    make_job(jobs, "9", state=JobState.SUCCEEDED, user="ann", details="ami-0123456789abcdef0", log=b"Done.\n",
             created=now - 200, size=3_145_728, target="directory")  # fmt: skip
    server = serve(jobs)
    browser.origin = "http://{}:{}".format(*server.address)
    browser.server = server
    browser.call("Page.navigate", url="about:blank")
    browser.requested.clear()
    browser.complaints.clear()
    go(browser, "/ui")
    browser.wait_for("document.querySelectorAll('#jobs tr').length === 3")
    yield browser, jobs
    assert browser.complaints == []
    assert [url for url in browser.requested if not url.startswith((f"{browser.origin}/", "data:", "about:"))] == []
    browser.call("Page.navigate", url="about:blank")  # lets go of the server


def go(browser, path):
    browser.call("Page.navigate", url=f"{browser.origin}{path}")


def names(browser):
    return browser.value("[...document.querySelectorAll('#jobs a')].map(a => a.textContent)")


def text(browser, query):
    return browser.value(f"document.querySelector('{query}').textContent")


def enter(browser, query, value):
    browser.value(
        f"(() => {{ const it = document.querySelector('{query}'); it.value = {value!r};"
        " it.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def wait_for_names(browser, *wanted):
    shown = "[...document.querySelectorAll('#jobs a')].map(a => a.textContent).join()"
    browser.wait_for(f"{shown} === '{','.join(wanted)}'")


def test_jobs_are_shown_newest_first_with_progress_and_age(page):
    browser, _ = page
    assert names(browser) == ["9", "8", "7"]
    assert browser.value("[...document.querySelectorAll('.state')].map(s => s.textContent)") == [
        "succeeded", "scheduled", "uploading",
    ]  # fmt: skip
    assert browser.value("[...document.querySelectorAll('progress')].map(p => [p.value, p.ariaLabel])") == [
        [40, "progress of job 7"]
    ]
    assert text(browser, "#status") == "3 jobs, 1 uploading"
    times = browser.value("[...document.querySelectorAll('td.created')].map(t => t.textContent)")
    assert times[:2] == ["3 minutes ago", "3 hours ago"]
    assert browser.value("document.querySelector('td.created time').title")


def test_names_and_logs_from_outside_stay_text(page):
    browser, _ = page
    assert text(browser, "#jobs tr:last-child .user") == HOSTILE.replace("\u202e", "\\u202e")
    assert browser.value("getComputedStyle(document.querySelector('.user')).unicodeBidi") == "isolate"
    assert browser.value("document.title") == "Jobs - Cloud uploads"
    go(browser, "/ui/job/7")
    browser.wait_for("document.getElementById('log')?.textContent.includes('reverse')")
    escapes = {"\u202e": "\\u202e", "\x1b": "\\u001b", "\x00": "\\u0000"}
    assert text(browser, "#log") == HOSTILE_LOG.translate(str.maketrans(escapes))
    assert browser.value("[...document.querySelectorAll('#fields dt')].map(t => t.textContent)") == [
        "Progress", "User", "Target", "Image", "Created", "Last change",
    ]  # fmt: skip
    assert browser.value("document.querySelectorAll('img, b, main script').length") == 0
    assert browser.value("document.title") == "Job 7 uploading - Cloud uploads"


def test_policy_stops_what_gets_into_the_page_all_the_same(page):
    browser, _ = page
    browser.value(
        "new Promise(done => { document.addEventListener('securitypolicyviolation', done, {once: true});"
        " const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s); })"
    )
    assert browser.value("document.title") == "Jobs - Cloud uploads"
    browser.value("fetch('http://127.0.0.1:1/').catch(() => 0)")
    assert any(text.startswith("Executing inline script violates") for text in browser.complaints)
    assert any("http://127.0.0.1:1/" in text for text in browser.complaints)
    assert all("Content Security Policy" in text for text in browser.complaints)
    browser.complaints.clear()
    browser.requested.clear()


def test_job_has_a_page_of_its_own_with_reason_and_duration(page):
    browser, _ = page
    browser.value("document.querySelector('#jobs a').focus()")
    browser.press("Enter")
    browser.wait_for("location.pathname === '/ui/job/9' && document.getElementById('log')?.textContent === 'Done.\\n'")
    assert text(browser, "#state") == "succeeded"
    assert text(browser, "#reason") == "ami-0123456789abcdef0"
    assert re.fullmatch(r"(now|\d+ seconds? ago), after 3 min \d+ s", text(browser, "#when"))
    pairs = "[...document.querySelectorAll('#fields dt')].map(t => [t.textContent, t.nextSibling.textContent])"
    fields = dict(browser.value(pairs))
    assert (fields["User"], fields["Size"]) == ("ann", "3.0 MiB (3,145,728 bytes)")
    assert fields["Ended"].endswith(" ago)") or fields["Ended"].endswith("(now)")
    download = browser.value("fetch(document.getElementById('download').href).then(answer => answer.text())")
    assert download == "Done.\n"
    assert browser.value("document.getElementById('download').download") == "job-9.log"


def test_log_grows_to_the_end_of_the_job_and_begins_anew_with_a_new_try(page):
    browser, jobs = page
    go(browser, "/ui/job/7")
    browser.wait_for("document.getElementById('log')?.textContent.includes('reverse')")
    with jobs.log_path("7").open("ab") as log:
        log.write("Phase: one\nPhase: upload \u00e4".encode()[:-1])
        log.flush()
        browser.wait_for("document.getElementById('log').textContent.endsWith('one\\n')")
        log.write("\u00e4\n".encode()[1:])
    browser.wait_for("document.getElementById('log').textContent.endsWith('upload \u00e4\\n')")
    new = jobs.directory / "new.log"
    new.write_text("The second try.\n" * 10)
    new.replace(jobs.log_path("7"))
    browser.wait_for("document.getElementById('log').textContent === 'The second try.\\n'.repeat(10)")
    with jobs.lock("7") as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    browser.wait_for("document.getElementById('reason').textContent === 'killed'")
    with jobs.done_log_path("7").open("ab") as log:
        log.write(b"Removed volume vol-1.\n")
    browser.wait_for("document.getElementById('log').textContent.includes('vol-1')")


def test_log_can_be_searched_and_its_lines_be_left_long(page):
    browser, jobs = page
    with jobs.done_log_path("9").open("w") as log:
        for number in range(300):
            log.write(f"line {number} {'Error' if number % 100 == 0 else 'fine'} {'long ' * 100}\n")
    go(browser, "/ui/job/9")
    browser.wait_for("document.getElementById('log')?.textContent.includes('line 299')")
    enter(browser, "#log-words", "error")
    browser.wait_for("document.getElementById('hits').textContent === '1 of 3'")
    browser.value("document.getElementById('log-words').focus()")
    browser.press("Enter")
    browser.wait_for("document.getElementById('hits').textContent === '2 of 3'")
    place, frame = (
        f"({query}).getBoundingClientRect()"
        for query in ("[...CSS.highlights.get('now')][0]", "document.getElementById('log')")
    )
    assert browser.value(f"{place}.top >= {frame}.top && {place}.bottom <= {frame}.bottom")
    assert browser.value("[...CSS.highlights.get('now')].map(String)") == ["Error"]
    browser.value("document.getElementById('previous').click(); document.getElementById('previous').click()")
    assert text(browser, "#hits") == "3 of 3"
    enter(browser, "#log-words", "no such word")
    assert text(browser, "#hits") == "not found"
    assert browser.value("document.getElementById('log').scrollWidth <= document.getElementById('log').clientWidth")
    browser.value("document.getElementById('wrap').click()")
    assert browser.value("document.getElementById('log').scrollWidth > document.getElementById('log').clientWidth")


def test_end_of_a_long_log_is_shown(page):
    browser, jobs = page
    jobs.done_log_path("9").write_bytes(b"the beginning\n" + b"0123456789abcde\n" * (1 << 16) + b"the end\n")
    go(browser, "/ui/job/9")
    browser.wait_for("document.getElementById('log')?.textContent.endsWith('the end\\n')")
    first, second, _ = browser.value("document.getElementById('log').textContent.split('\\n', 3)")
    assert first == "[the first 22 bytes are not shown; the download has them]"
    assert second == "89abcde"


@pytest.mark.parametrize("name", ["77", "x", "9%20"])
def test_job_that_is_not_there_is_told_of(page, name):
    browser, _ = page
    go(browser, f"/ui/job/{name}")
    browser.wait_for("document.getElementById('status')?.textContent.startsWith('There is no such job.')")
    assert browser.value("document.getElementById('job').hidden")
    browser.complaints[:] = [line for line in browser.complaints if "404" not in line]  # a browser says so itself


def test_jobs_are_looked_for_at_the_server_in_all_fields_and_reasons(page, make_job):
    browser, jobs = page
    for number in range(100, 180):
        make_job(jobs, str(number), state=JobState.FAILED, details="no room", project="home:x", user="bob")
    taken = {"details": "The AMI is Taken", "repository": "images", "target": "azure"}
    make_job(jobs, "10", state=JobState.FAILED, user="tom", **taken)
    go(browser, "/ui")
    browser.wait_for("document.querySelectorAll('#jobs tr').length === 50")
    assert browser.value("!document.getElementById('more').hidden")
    browser.value("document.getElementById('more').click()")
    browser.wait_for("document.querySelectorAll('#jobs tr').length === 84")
    enter(browser, "[name=text]", "taken images")
    wait_for_names(browser, "10")
    assert text(browser, "#status") == "1 of 84 jobs"
    assert browser.value("location.search") == "?text=taken+images"
    enter(browser, "[name=text]", "")
    enter(browser, "[name=state]", "running")
    wait_for_names(browser, "8", "7")
    enter(browser, "[name=user]", "tom")
    wait_for_names(browser, "8")
    go(browser, "/ui?user=tom&target=azure")
    wait_for_names(browser, "10")
    assert browser.value("[...document.querySelectorAll('#targets option')].map(o => o.value)") == ["azure"]
    browser.value("document.querySelector('#jobs a').click()")
    browser.wait_for("document.getElementById('state')?.textContent === 'failed'")
    browser.value("document.getElementById('back').click()")
    wait_for_names(browser, "10")
    enter(browser, "[name=text]", "nowhere")
    browser.wait_for("!document.getElementById('none').hidden")
    assert text(browser, "#none") == "No job matches."
    browser.value("document.querySelector('[type=reset]').click()")
    browser.wait_for("document.querySelectorAll('#jobs tr').length === 50")


@pytest.mark.parametrize("path", ["/ui", "/ui/job/7", "/ui/job/9", "/ui/job/77"])
def test_page_fits_a_narrow_screen(page, make_job, path):
    browser, jobs = page
    make_job(jobs, "123456789012345678", state=JobState.FAILED, user="u" * 200, details="d" * 300, package="p" * 200)
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **screen)
    go(browser, path)
    browser.wait_for(IS_LOADED)
    assert browser.value("document.documentElement.scrollWidth") <= 390
    assert browser.value("document.documentElement.clientWidth") == 390
    browser.call("Emulation.clearDeviceMetricsOverride")
    browser.complaints[:] = [line for line in browser.complaints if "404" not in line]


@pytest.mark.parametrize("path", ["/ui", "/ui/job/7"])
def test_everything_to_act_on_has_a_name(page, path):
    browser, _ = page
    go(browser, path)
    browser.wait_for(IS_LOADED)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "link", "searchbox", "progressbar", "heading", "status"}
    roles |= {"table", "columnheader", "row", "cell", "combobox"} if path == "/ui" else {"checkbox", "log"}
    found = [node for node in nodes if node.get("role", {}).get("value") in roles]
    assert {node["role"]["value"] for node in found} == roles
    is_named = roles - {"row", "cell", "status"}
    assert [node for node in found if node["role"]["value"] in is_named and not node["name"]["value"]] == []


def test_browser_is_led_to_the_page(page):
    browser, _ = page
    go(browser, "/")
    browser.wait_for("location.pathname === '/ui' && document.querySelectorAll('#jobs tr').length === 3")


def test_what_the_page_polls_is_not_logged(page):
    browser, _ = page
    go(browser, "/ui/job/9")
    browser.wait_for("document.getElementById('log')?.textContent === 'Done.\\n'")
    paths = re.findall(r"event=request .*path=(\S+)", browser.server.log.getvalue())
    files = {f"/ui/files/{name}" for name in ("base.js", "job.js", "jobs.js", "log.js", "ui.css")}
    assert set(paths) == {"/ui", "/ui/job/9", *files}


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
