"""A browser that pages are looked at in: headless Chromium, spoken to over a pipe."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

#: What it is called, by system.
NAMES = ("chromium", "chromium-browser", "google-chrome")
#: What a page that is in order is silent of.
COMPLAINTS = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
#: Seconds until an answer must be there.
PATIENCE = 60.0


def find() -> str | None:
    """Return where a browser is, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """A browser of its own, without a profile, which ends with the test."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs, self._to = os.pipe()
        self._from, back = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        flags += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run"]
        silence = os.open(os.devnull, os.O_RDWR)
        high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 10) for one in (theirs, back, silence)]
        # it reads commands from 3 and writes answers to 4
        places = zip((high[0], high[1], high[2], high[2]), (3, 4, 1, 2), strict=True)
        moves = [(os.POSIX_SPAWN_DUP2, one, place) for one, place in places]
        command = [program, *flags]
        self._process = os.posix_spawn(program, command, os.environ, file_actions=moves)
        for one in (theirs, back, silence, *high):
            os.close(one)
        os.set_blocking(self._from, False)
        self._sent, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        """End it."""
        self.call("Browser.close")
        os.waitpid(self._process, 0)
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Return the answer to a command; what else it says meanwhile is an event."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._sent:
                assert "error" not in found, (method, found["error"])
                return dict(found["result"])
            self.events.append(found)

    def wait_for(self, method: str, session: str) -> None:
        """Wait for an event of a session."""
        seen = 0
        while True:
            for event in self.events[seen:]:
                seen += 1
                if event.get("method") == method and event.get("sessionId") == session:
                    return
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            assert time.monotonic() < end, "the browser says nothing"
            try:
                read = os.read(self._from, 2**20)
                assert read, "the browser is gone"
                self._rest += read
            except BlockingIOError:
                time.sleep(0.002)
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


class Tab:
    """A page that is open in a browser.

    Parameters
    ----------
    browser : Browser
    page : pathlib.Path
    width : int
        Of the window, in pixels.
    script : bool
        Whether the page's own runs.
    """

    def __init__(self, browser: Browser, page: Path, width: int, *, script: bool = True) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(width)
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self._first = len(browser.events)
        self.call("Page.navigate", url=page.as_uri())
        browser.wait_for("Page.loadEventFired", self._session)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the answer to a command."""
        return self._browser.call(method, self._session, **params)

    def resize(self, width: int) -> None:
        """Make the window as wide."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def value(self, expression: str) -> Any:
        """Return what an expression gives in the page."""
        how = {"returnByValue": True, "replMode": True}  # names may be declared once more
        found = self.call("Runtime.evaluate", expression=expression, **how)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def complaints(self) -> list[Any]:
        """Return errors of scripts, what was refused, and what was fetched from elsewhere."""
        found = []
        for event in self._browser.events[self._first :]:
            if event.get("sessionId") == self._session:
                url = event["params"].get("request", {}).get("url", "file:")
                if event["method"] in COMPLAINTS or not url.startswith(("file:", "data:")):
                    found.append(event["params"])
        return found
