"""A real browser without a window, driven over the WebDriver protocol (plain HTTP and JSON)."""

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# the key under which WebDriver names an element
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One page of one browser."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, page: Path | str) -> None:
        """Open a file or an address and wait until it has loaded."""
        address = page if isinstance(page, str) else page.resolve().as_uri()
        self._call("POST", "/url", {"url": address})

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file or folder in an `<input type="file">`, as a person does in the dialogue."""
        element = self._find(selector)[_ELEMENT]
        self._call("POST", f"/element/{element}/value", {"text": str(path.resolve())})

    def run(self, script: str, *arguments: object) -> Any:
        """Run JavaScript in the page and return what it returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, seconds: float = 30.0) -> Any:
        """Wait until JavaScript returns something true, and return it."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"still false after {seconds} s: {script}"
            time.sleep(0.1)
        return value

    def hover(self, selector: str) -> None:
        """Move the mouse over the middle of an element."""
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        moves = [
            {"type": "pointerMove", "duration": 50, "origin": self._find(selector), "x": x, "y": 0}
            for x in (1, 0)
        ]
        pointer = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}}
        self._call("POST", "/actions", {"actions": [{**pointer, "actions": moves}]})

    def press(self, *keys: str) -> None:
        """Press keys one after the other, e.g. `\\ue004` for the tabulator."""
        typed = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "k", "actions": typed}]})

    def console(self) -> list[str]:
        """Errors and warnings since the last call."""
        entries = self._call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window in pixels."""
        self._call("POST", "/window/rect", {"width": width, "height": height})

    def prefer(self, scheme: str) -> None:
        """Let the system prefer `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        command = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}}
        self._call("POST", "/goog/cdp/execute", command)

    def screenshot(self, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        parameters = {"captureBeyondViewport": whole}
        command = {"cmd": "Page.captureScreenshot", "params": parameters}
        return base64.b64decode(self._call("POST", "/goog/cdp/execute", command)["data"])

    def close(self) -> None:
        """End the session; the browser ends with it."""
        self._call("DELETE", "", None)

    def _find(self, selector: str) -> dict[str, str]:
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return {_ELEMENT: found[_ELEMENT]}

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        return _request(method, self._session + path, body)


@contextmanager
def open_browser(folder: Path, *switches: str) -> Iterator[Browser]:
    """Start a browser; the test is skipped where there is none.

    Args:
        folder: where the browser may keep its profile.
        switches: more arguments of the browser's command line.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs chromium (or google-chrome) and chromedriver on the PATH")
    process = subprocess.Popen(
        [driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    browser = None
    try:
        address = f"http://127.0.0.1:{_port(process)}"
        options = {
            "binary": program,
            "args": [
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *("--window-size=1280,900", f"--user-data-dir={folder / 'profile'}"),
                *switches,
            ],
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        body = {"capabilities": {"alwaysMatch": wanted}}
        session = _request("POST", f"{address}/session", body)["sessionId"]
        browser = Browser(f"{address}/session/{session}")
        yield browser
    finally:
        if browser is not None:
            browser.close()
        process.terminate()
        process.wait(timeout=30)


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if "started successfully on port" in line:
            return int(line.rstrip().rstrip(".").rpartition(" ")[2])
    raise AssertionError("chromedriver ended before it told its port")


def _request(method: str, url: str, body: dict[str, Any] | None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    # a proxy of the environment is not for this machine itself
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=120) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.read().decode()[:500]}") from error
