"""Headless Chromium, driven by the DevTools protocol over two pipes."""

import base64
import json
import os
import select
import subprocess
import time

PATIENCE_SECONDS = 60  # only a failing test waits that long
POLL_SECONDS = 0.05
EMPTY_PAGE = "about:blank"
KEYS = {"Enter": ("Enter", 13, "\r"), "Escape": ("Escape", 27, ""), "Tab": ("Tab", 9, ""), " ": (" ", 32, " ")}
OPTIONS = (
    "--headless=new", "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


class Browser:
    """A browser with one page.

    Args:
        directory: For what it keeps.
        options: Further ones.
        before: Words before the command line.

    Attributes:
        requested: The addresses that the page has asked for.
        complaints: Errors and violations of the policy that it reported.
    """

    def __init__(self, directory, *options, before=()):
        self._in, child_out = os.pipe()
        child_in, self._out = os.pipe()
        command = f'exec "$@" 3<&{child_in} 4>&{child_out}'  # Chromium reads from 3 and writes to 4
        self._process = subprocess.Popen(
            [*before, "bash", "-c", command, "bash", "chromium", *OPTIONS, *options, f"--user-data-dir={directory}",
             EMPTY_PAGE],
            pass_fds=(child_in, child_out), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(child_in)
        os.close(child_out)
        self._buffer, self._number, self._session = b"", 0, None
        self.requested, self.complaints = [], []
        target = self.call("Target.createTarget", url=EMPTY_PAGE)["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        self._session = None
        self.call("Browser.close")
        self._process.wait(PATIENCE_SECONDS)
        os.close(self._in)
        os.close(self._out)

    def call(self, method, **params):
        """Call a method of the protocol, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self):
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], PATIENCE_SECONDS)[0], "the browser says nothing"
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser is gone"
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        params = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["text"])
        return message

    def value(self, expression):
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, expression):
        """Wait until a JavaScript expression is true; in a page that is not ready it may fail for a while."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.value(f"(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()"):
            assert time.monotonic() < deadline, f"{expression} did not become true"
            time.sleep(POLL_SECONDS)

    def press(self, name):
        key, code, text = KEYS[name]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def type(self, query, text):
        """Put the focus on an element once it is shown, and type over what is in it."""
        self.wait_for(f"document.querySelector({json.dumps(query)}).offsetParent !== null")
        self.value(f"(() => {{ const it = document.querySelector({json.dumps(query)}); it.focus(); it.select(); }})()")
        self.call("Input.insertText", text=text)

    def click(self, query):
        """Click into the middle of an element with the mouse."""
        x, y = self._middle(query)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drop(self, query, path):
        """Drag a file onto an element."""
        x, y = self._middle(query)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def _middle(self, query):
        return self.value(
            f"(() => {{ const it = document.querySelector({json.dumps(query)}); it.scrollIntoView({{block: 'center'}});"
            " const box = it.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
