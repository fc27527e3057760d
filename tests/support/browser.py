"""Chromium without a window and without a network beyond 127.0.0.1, driven by its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/ names the methods and events.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import contextlib
import itertools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.live import DEADLINE, until

CHROMIUM = shutil.which("chromium")
_SHARED: list[_Browser] = []
"""The browser that the tests of this process share, and those before it that died."""
_LONGEST = 500
"""Characters of a complaint: a page may name what is blocked by all its data."""
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
)
_KEYS = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    " ": (32, " "),
    "PageUp": (33, ""),
    "PageDown": (34, ""),
    "End": (35, ""),
    "Home": (36, ""),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    "Delete": (46, ""),
}
"""The Windows virtual key codes of keys, and what they write."""
_SHIFT, _CONTROL = 8, 2
_TRACED = {"includedCategories": ["disabled-by-default-devtools.timeline"], "excludedCategories": ["*"]}
_MAIN = "CrRendererMain"
"""The name of the main thread of a process that runs pages."""
_GONE = re.compile("navigated|context was destroyed|Cannot find (default )?(execution )?context")
_PATIENCE = 3 * DEADLINE
"""Seconds that a page may take: on a busy machine, several browsers start at once."""
_LATER = """new Promise((resolve, reject) => {
  const look = () => {
    const found = (() => { try { return %s } catch { return false } })();
    if (found) resolve(found instanceof Node || found); else setTimeout(look, 20);
  };
  const shown = () => document.body?.innerText.slice(0, 2000);
  setTimeout(() => reject(new Error(`it is still not so; the page shows ${shown()}`)), %d);
  look();
})"""


class BrowserError(Exception):
    """The browser refused a command, or the page threw."""


class NavigationError(BrowserError):
    """The page went while it was asked."""


@dataclass(frozen=True)
class Task:
    """What a thread did without a break, in seconds."""

    clock: float
    """With the time that it waited for a processor."""
    processor: float


class Page:
    """One tab. What it complains of is collected from before its first load on."""

    def __init__(self, connection: ClientConnection, *, is_apart: bool = False) -> None:
        self.complaints: list[str] = []
        """Errors and warnings of the console, uncaught exceptions, requests that failed, violations of the policy."""
        self.requests: list[str] = []
        """The method and the address of each request, one that opens a websocket included."""
        self.sent: list[str] = []
        """The messages that it sent over websockets."""
        self.received = 0
        """Characters of the messages that it was sent over websockets."""
        self._trace: list[dict[str, Any]] = []
        self._traced = asyncio.Event()
        self._connection = connection
        self._is_apart = is_apart
        self._session: str | None = None
        self._context: dict[str, Any] = {}
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._loaded = asyncio.Event()

    async def open(self, url: str, *, width: int = 1400, height: int = 900) -> None:
        """Returns when the page and what its HTML names are loaded."""
        if self._session is None:
            await self._begin(width, height)
        await self._loading("Page.navigate", url=url)

    async def reload(self) -> None:
        await self._loading("Page.reload")

    async def evaluate(self, expression: str) -> Any:
        """Its value as JSON; a promise is awaited."""
        answer = await self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {_told(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    async def history(self) -> list[str]:
        """The addresses that the button back would go to, and this one."""
        answer = await self.command("Page.getNavigationHistory")
        return [entry["url"] for entry in answer["entries"]]

    async def until(self, expression: str) -> Any:
        """The first value of an expression that counts as true (an element does), in the next page if one comes."""
        while True:
            with contextlib.suppress(NavigationError):
                return await self.evaluate(_LATER % (expression, _PATIENCE * 1000))

    async def becomes(self, expression: str, expected: Any) -> None:
        """Waits until an expression has this value: what a page shows may come a moment after what was awaited."""
        text = json.dumps(expected, ensure_ascii=False, separators=(",", ":"))
        await self.until(f"JSON.stringify(({expression}) ?? null) === {json.dumps(text)}")

    async def press(self, key: str, code: int | None = None, *, control: bool = False, shift: bool = False) -> None:
        """A key by its name, as `KeyboardEvent.key`, with its Windows virtual key code unless that is known here."""
        known, text = _KEYS.get(key, (0, ""))
        event: dict[str, Any] = {"key": key, "code": "Space" if key == " " else key}
        event |= {"windowsVirtualKeyCode": code or known, "modifiers": _CONTROL * control + _SHIFT * shift}
        if text:
            event["text"] = text
        for type_ in ("keyDown", "keyUp"):
            await self.command("Input.dispatchKeyEvent", type=type_, **event)

    async def type(self, text: str) -> None:
        """Into what has the focus."""
        await self.command("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        """The middle of the first element that fits, as a mouse does."""
        where = f"document.querySelector({json.dumps(selector)})?.getBoundingClientRect()"
        box = json.loads(await self.until(f"JSON.stringify({where})"))
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for type_ in ("mousePressed", "mouseReleased"):
            await self.command("Input.dispatchMouseEvent", type=type_, **place, button="left", clickCount=1)

    async def resize(self, width: int, height: int = 900, *, zoom: float = 1.0) -> None:
        """The window's size in pixels of the screen; a page that is zoomed has so many fewer of its own."""
        size = {"width": round(width / zoom), "height": round(height / zoom), "deviceScaleFactor": zoom}
        await self.command("Emulation.setDeviceMetricsOverride", mobile=False, **size)

    async def prefer(self, **features: str) -> None:
        """Preferences of the system, as CSS names them: `color_scheme="dark"`, `reduced_motion="reduce"`."""
        named = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        await self.command("Emulation.setEmulatedMedia", features=named)

    async def live_in(self, zone: str) -> None:
        """The viewer's time zone."""
        await self.command("Emulation.setTimezoneOverride", timezoneId=zone)

    async def freeze(self, *, on: bool = True) -> None:
        """Stops timers and messages, as a browser does with a tab that it puts to sleep; or goes on."""
        await self.command("Page.setWebLifecycleState", state="frozen" if on else "active")

    async def permit(self, *permissions: str) -> None:
        """What the browser would ask the viewer about."""
        await self._ask("Browser.grantPermissions", of_the_tab=False, permissions=permissions, **self._context)

    async def renderers(self) -> list[int]:
        """The ids of the processes that run pages."""
        answer = await self._ask("SystemInfo.getProcessInfo", of_the_tab=False)
        return [each["id"] for each in answer["processInfo"] if each["type"] == "renderer"]

    async def heap(self) -> int:
        """Bytes of what scripts hold, after garbage was collected."""
        await self.command("HeapProfiler.collectGarbage")
        answer = await self.command("Runtime.getHeapUsage")
        return int(answer["usedSize"])

    async def trace(self) -> None:
        """Begins to take note of what the threads do, until `tasks`."""
        self._trace.clear()
        self._traced.clear()
        await self.command("Tracing.start", traceConfig=_TRACED, transferMode="ReportEvents")

    async def tasks(self) -> list[Task]:
        """Those of the page's main thread since `trace`."""
        await self.command("Tracing.end")
        async with asyncio.timeout(_PATIENCE):
            await self._traced.wait()
        threads = {(event["pid"], event["tid"]) for event in self._trace if event["args"].get("name") == _MAIN}
        found: dict[tuple[int, int], list[Task]] = {thread: [] for thread in threads}
        for event in self._trace:
            if event["name"] == "RunTask" and (thread := (event["pid"], event["tid"])) in threads:
                found[thread].append(Task(event.get("dur", 0) / 1e6, event.get("tdur", 0) / 1e6))
        return max(found.values(), key=lambda tasks: sum(task.processor for task in tasks))

    async def screenshot(self, path: Path) -> None:
        """In the format that the name ends with, such as `.png` or `.webp`."""
        answer = await self.command("Page.captureScreenshot", format=path.suffix.removeprefix("."))
        path.write_bytes(base64.b64decode(answer["data"]))

    async def close_browser(self) -> None:
        """What it keeps is written then."""
        await self._connection.send('{"id": -1, "method": "Browser.close"}')

    async def listen(self) -> None:
        """Until the connection ends: hands answers to who waits for them, and takes note of events."""
        with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
            async for text in self._connection:
                message = json.loads(text)
                if "id" in message:
                    self._answer(self._waiting.pop(message["id"], None), message)
                else:
                    self._count(message["method"], message["params"])
                    self._note(message["method"], message["params"])

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """What the tab answers to a method of the protocol."""
        return await self._ask(method, **params)

    def _complain(self, kind: str, told: object) -> None:
        self.complaints.append(f"{kind}: {str(told)[:_LONGEST]}")

    async def _begin(self, width: int, height: int) -> None:
        if self._is_apart:
            self._context = await self._ask("Target.createBrowserContext", disposeOnDetach=True)
        target = await self._ask("Target.createTarget", url="about:blank", **self._context)
        attached = await self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            await self.command(f"{domain}.enable")
        await self.command("Emulation.setFocusEmulationEnabled", enabled=True)  # of several pages one has it
        await self.resize(width, height)

    async def _loading(self, method: str, **params: Any) -> None:
        self._loaded.clear()
        answer = await self.command(method, **params)
        if "errorText" in answer:
            raise BrowserError(f"{method} {params}: {answer['errorText']}")
        async with asyncio.timeout(_PATIENCE):
            await self._loaded.wait()

    async def _ask(self, method: str, *, of_the_tab: bool = True, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        if of_the_tab and self._session is not None:
            message["sessionId"] = self._session
        await self._connection.send(json.dumps(message))
        async with asyncio.timeout(_PATIENCE + 5):
            answer: dict[str, Any] = await future
        return answer

    def _answer(self, future: asyncio.Future[Any] | None, message: dict[str, Any]) -> None:
        if future is None or future.done():  # who asked waits no longer
            return
        if "error" in message:
            told = message["error"]["message"]
            future.set_exception(NavigationError(told) if _GONE.search(told) else BrowserError(told))
        else:
            future.set_result(message["result"])

    def _count(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Network.requestWillBeSent":
                request = params["request"]
                self.requests.append(f"{request['method']} {request['url']}")
            case "Network.webSocketCreated":
                self.requests.append(f"GET {params['url']}")
            case "Network.webSocketFrameSent":
                self.sent.append(params["response"]["payloadData"])
            case "Network.webSocketFrameReceived":
                self.received += len(params["response"]["payloadData"])
            case "Tracing.dataCollected":
                self._trace += params["value"]
            case "Tracing.tracingComplete":
                self._traced.set()

    def _note(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                told = " ".join(str(each.get("value", each.get("description"))) for each in params["args"])
                self._complain(f"console.{params['type']}", told)
            case "Runtime.exceptionThrown":
                self._complain("exception", _told(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                entry = params["entry"]
                self._complain(entry["source"], f"{entry['text']} {entry.get('url', '')}")
            case "Audits.issueAdded" if params["issue"]["code"] == "ContentSecurityPolicyIssue":
                self._complain("policy", json.dumps(params["issue"]["details"]))


class _Browser(NamedTuple):
    process: subprocess.Popen[bytes]
    address: str
    """Of its DevTools."""

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


@asynccontextmanager
async def browsing(profile: Path | None = None) -> AsyncIterator[Page]:
    """A page that shares nothing with others: no cookies, no storage, no connections. It ends with this context.

    With a profile, of a browser of its own, which keeps there what it keeps.
    """
    if profile is None:
        async with _page(await _shared(), is_apart=True) as page:
            yield page
        return
    browser = await _started(profile)
    try:
        async with _page(browser, is_apart=False) as page:
            yield page
            await page.close_browser()
            await asyncio.to_thread(browser.process.wait)
    finally:
        browser.close()


@asynccontextmanager
async def _page(browser: _Browser, *, is_apart: bool) -> AsyncIterator[Page]:
    async with connect(browser.address, max_size=None, proxy=None) as connection:
        page = Page(connection, is_apart=is_apart)
        listening = asyncio.create_task(page.listen())
        try:
            yield page
        finally:
            listening.cancel()
            await listening


async def _shared() -> _Browser:
    """The one of all tests of this process: to start a browser for each takes longer than most of what they do."""
    if not _SHARED or _SHARED[-1].process.poll() is not None:
        profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        browser = await _started(Path(profile.name))
        atexit.register(profile.cleanup)
        atexit.register(browser.close)  # before the folder goes
        _SHARED.append(browser)
    return _SHARED[-1]


async def _started(profile: Path) -> _Browser:
    assert CHROMIUM is not None
    process = subprocess.Popen(
        (CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    told = profile / "DevToolsActivePort"
    try:
        await until(lambda: told.exists() and len(told.read_text().splitlines()) == 2)
    except BaseException:
        process.kill()
        raise
    port, path = told.read_text().splitlines()
    return _Browser(process, f"ws://127.0.0.1:{port}{path}")


def _told(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description", details.get("text")))
