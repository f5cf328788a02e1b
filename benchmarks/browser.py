"""A headless Chromium, driven over a pipe (Chrome DevTools Protocol), and a server for its pages."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, on this machine alone."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Browser:
    """One page. What it writes to its console, errors above all, is in `console`."""

    def __init__(self, url: str, profile: Path, width: int = 800, height: int = 840) -> None:
        assert CHROMIUM is not None
        down_there, self._down = os.pipe()
        self._up, up_there = os.pipe()
        words = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
                 f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]  # fmt: skip
        command = ["/bin/bash", "-c", f'exec "$@" 3<&{down_there} 4>&{up_there}', "bash", *words]
        self.process = subprocess.Popen(
            command, pass_fds=[down_there, up_there], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(down_there)
        os.close(up_there)
        self._number, self._read, self.console = 0, b"", list[str]()
        page = next(t for t in self._ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime"):
            self.ask(f"{domain}.enable")
        self.ask("Page.navigate", url=url)

    def _ask(self, method: str, session: str | None = None, **params: Any) -> Any:
        self._number += 1
        told = {"id": self._number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._down, json.dumps(told).encode() + b"\0")
        while True:
            while b"\0" not in self._read:
                more = os.read(self._up, 1 << 20)
                assert more, "the browser has ended"
                self._read += more
            text, self._read = self._read.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self.console.append(json.dumps(answer["params"])[:500])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def ask(self, method: str, **params: Any) -> Any:
        """The page's answer to a request of the protocol."""
        return self._ask(method, self._session, **params)

    def value(self, script: str) -> Any:
        """What an expression of JavaScript, or the promise that it is, gives."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def drag(self, points: list[tuple[float, float]]) -> None:
        """Press the mouse at the first point, move it along the others, let go."""
        for i, (x, y) in enumerate(points):
            kind = "mousePressed" if i == 0 else "mouseMoved"
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        x, y = points[-1]
        self.ask("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)

    def screenshot(self) -> bytes:
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        os.close(self._down)
        os.close(self._up)
