"""For tests that look at a page: its tags, and a headless Chromium through chromedriver's own HTTP interface."""

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest

OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Browser:
    """One window. The commands are those of the WebDriver standard."""

    def __init__(self, address, size, phone=False):
        self._address = address
        options = {"args": [*OPTIONS, f"--window-size={size[0]},{size[1]}"]}
        if phone:
            metrics = {"width": size[0], "height": size[1], "pixelRatio": 2, "touch": True}
            options["mobileEmulation"] = {"deviceMetrics": metrics}
        chosen = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        started = self._send("POST", "/session", {"capabilities": {"alwaysMatch": chosen}})
        self._session = f"/session/{started['sessionId']}"

    def _send(self, kind, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"}, method=kind)
        with OPENER.open(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, path):
        self._send("POST", f"{self._session}/url", {"url": path.resolve().as_uri()})

    def run(self, script, *given):
        return self._send("POST", f"{self._session}/execute/sync", {"script": script, "args": list(given)})

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self._send("GET", f"{self._session}/screenshot")))

    def log(self):
        return self._send("POST", f"{self._session}/se/log", {"type": "browser"})

    def drag(self, start, end):
        """Press at one point of the window, move to another, and let go."""
        steps = [
            {"type": "pointerMove", "duration": 0, "x": round(start[0]), "y": round(start[1])},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "duration": 50, "x": round(end[0]), "y": round(end[1])},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": steps}
        self._send("POST", f"{self._session}/actions", {"actions": [mouse]})

    def close(self):
        self._send("DELETE", self._session)


@contextmanager
def browser(size=(1200, 900), phone=False):
    """A browser, or a skipped test where Chromium and its driver are not installed."""
    driver = shutil.which("chromedriver")
    if driver is None or not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("needs Chromium and chromedriver, on Debian: apt-get install chromium-driver")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = next(found[1] for line in process.stdout if (found := re.search(r"successfully on port (\d+)", line)))
        time.sleep(0.2)
        window = Browser(f"http://127.0.0.1:{port}", size, phone)
        yield window
        window.close()
    finally:
        process.terminate()
        process.wait(10)


class Page(HTMLParser):
    """The tags of a page with their attributes, and its embedded data."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self._inside, data = [], [], [], []
        self._data = data
        self.feed(text)
        self.data = json.loads("".join(data))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")
        if tag not in ("meta", "img", "input", "br", "link"):
            self._inside.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if self._inside and self._inside[-1][1].get("id") == "data":
            self._data.append(data)
        if any(tag == "td" for tag, _ in self._inside):
            self.cells[-1] += data
