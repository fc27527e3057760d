"""Chromium without a window and without a network beyond 127.0.0.1, driven by its DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/ names the methods and events.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.live import DEADLINE, until

CHROMIUM = shutil.which("chromium")
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
_GONE = re.compile("navigated|context was destroyed|Cannot find (default )?(execution )?context")
_LATER = """new Promise((resolve, reject) => {
  const look = () => {
    const found = (() => { try { return %s } catch { return false } })();
    if (found) resolve(found instanceof Node || found); else setTimeout(look, 20);
  };
  setTimeout(() => reject(new Error("it is still not so")), %d);
  look();
})"""


class BrowserError(Exception):
    """The browser refused a command, or the page threw."""


class NavigationError(BrowserError):
    """The page went while it was asked."""


class Page:
    """One tab. What it complains of is collected from before its first load on."""

    def __init__(self, connection: ClientConnection) -> None:
        self.complaints: list[str] = []
        """Errors and warnings of the console, uncaught exceptions, requests that failed, violations of the policy."""
        self._connection = connection
        self._session: str | None = None
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
        answer = await self._ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {_told(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    async def stop_scripts(self) -> None:
        """As if the browser ran none: from the next load on. What a test evaluates is executed nevertheless."""
        await self._ask("Emulation.setScriptExecutionDisabled", value=True)

    async def history(self) -> list[str]:
        """The addresses that the button back would go to, and this one."""
        answer = await self._ask("Page.getNavigationHistory")
        return [entry["url"] for entry in answer["entries"]]

    async def until(self, expression: str) -> Any:
        """The first value of an expression that counts as true (an element does), in the next page if one comes."""
        while True:
            with contextlib.suppress(NavigationError):
                return await self.evaluate(_LATER % (expression, 3 * DEADLINE * 1000))

    async def press(self, key: str, code: int, *, control: bool = False) -> None:
        """A key that writes nothing, with its Windows virtual key code; Enter does what it does in a form."""
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 2 * control}
        if key == "Enter":
            event["text"] = "\r"
        for type_ in ("keyDown", "keyUp"):
            await self._ask("Input.dispatchKeyEvent", type=type_, **event)

    async def type(self, text: str) -> None:
        """Into what has the focus."""
        await self._ask("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        """The middle of the first element that fits, as a mouse does."""
        where = f"document.querySelector({json.dumps(selector)})?.getBoundingClientRect()"
        box = json.loads(await self.until(f"JSON.stringify({where})"))
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for type_ in ("mousePressed", "mouseReleased"):
            await self._ask("Input.dispatchMouseEvent", type=type_, **place, button="left", clickCount=1)

    async def screenshot(self, path: Path) -> None:
        answer = await self._ask("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))

    async def listen(self) -> None:
        """Until the connection ends: hands answers to who waits for them, and takes note of events."""
        with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
            async for text in self._connection:
                message = json.loads(text)
                if "id" in message:
                    self._answer(self._waiting.pop(message["id"], None), message)
                else:
                    self._note(message["method"], message["params"])

    def _complain(self, kind: str, told: object) -> None:
        self.complaints.append(f"{kind}: {str(told)[:_LONGEST]}")

    async def _begin(self, width: int, height: int) -> None:
        target = await self._ask("Target.createTarget", url="about:blank")
        attached = await self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            await self._ask(f"{domain}.enable")
        await self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def _loading(self, method: str, **params: Any) -> None:
        self._loaded.clear()
        answer = await self._ask(method, **params)
        if "errorText" in answer:
            raise BrowserError(f"{method} {params}: {answer['errorText']}")
        async with asyncio.timeout(DEADLINE):
            await self._loaded.wait()

    async def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._connection.send(json.dumps(message))
        async with asyncio.timeout(DEADLINE + 5):
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


@asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Page]:
    """A page of a browser with a profile of its own, which ends with this context."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        *(CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        told = profile / "DevToolsActivePort"
        await until(lambda: told.exists() and len(told.read_text().splitlines()) == 2)
        port, path = told.read_text().splitlines()
        async with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None) as connection:
            page = Page(connection)
            listening = asyncio.create_task(page.listen())
            try:
                yield page
                await connection.send('{"id": -1, "method": "Browser.close"}')  # what it keeps is written then
                await process.wait()
            finally:
                listening.cancel()
                await listening
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _told(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description", details.get("text")))
