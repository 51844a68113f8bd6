"""A headless Chromium that tests drive over the DevTools protocol, through a pair of pipes."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from export.runtimes.needs import chromium

FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # it does not start as root otherwise, and the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--force-device-scale-factor=1",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
ALL_VIEWS = ((1280, "light"), (1280, "dark"), (360, "light"), (360, "dark"))
VIEWS = (ALL_VIEWS[0], ALL_VIEWS[3])
FAULTS = (Path(__file__).parent / "page_faults.js").read_text()
PATIENCE = 60.0  # seconds for anything to happen


class Browser:
    """One tab.

    Attributes:
        requests: addresses that it asked for.
        complaints: errors and warnings on its console, and what was thrown and not caught.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", write: int, read: int) -> None:
        self._process, self._write = process, write
        self._answers: queue.Queue[Any] = queue.Queue()
        self._count, self._session = 0, ""
        self._loaded = threading.Event()
        self._lock = threading.Lock()  # the listening thread sends too
        self.requests: list[str] = []
        self.complaints: list[str] = []
        threading.Thread(target=self._listen, args=(read,), daemon=True).start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")
        # Workers are sessions of their own, whose requests count too.
        self.call(
            "Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True
        )

    def call(self, method: str, **parameters: Any) -> Any:
        """Calls a method of the protocol and returns its result."""
        number = self._send(method, self._session, parameters)
        while True:
            answer = self._answers.get(timeout=PATIENCE)
            if answer["id"] == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def open(self, address: str) -> None:
        """Loads a page, with nothing remembered of what was asked and complained before."""
        for place in ("about:blank", address):  # the first, so that more than the fragment differs
            self.requests.clear()
            self.complaints.clear()
            self._loaded.clear()
            self.call("Page.navigate", url=place)
            if not self._loaded.wait(PATIENCE):
                raise TimeoutError(f"{place} was not loaded")

    def faults(self, views: Iterable[tuple[int, str]] = VIEWS) -> list[str]:
        """Lists what is wrong with the page that is open; tests/page_faults.js says what can be.

        Args:
            views: width of the window in pixels, and colour scheme.
        """
        found = list(self.complaints)
        for width, scheme in views:
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            self.call("Emulation.setDeviceMetricsOverride", **size)
            media = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
            features = [{"name": name, "value": value} for name, value in media.items()]
            self.call("Emulation.setEmulatedMedia", features=features)
            found += [f"{width}, {scheme}: {fault}" for fault in self.run(FAULTS)]
        self.call("Emulation.clearDeviceMetricsOverride")
        self.call("Emulation.setEmulatedMedia", features=[])
        return found

    def run(self, script: str) -> Any:
        """Evaluates an expression in the page; awaits a promise."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", script))
        return found["result"].get("value")

    def wait(self, script: str) -> Any:
        """Waits until an expression is true and returns its value; True for an element."""
        by_value = f"((value) => value instanceof Node || value)({script})"
        return self.wait_for(lambda: self.run(by_value), script)

    def wait_for(self, get: Callable[[], Any], what: str = "what was waited for") -> Any:
        """Waits until a function returns a true value."""
        end = time.monotonic() + PATIENCE
        while not (value := get()):
            if time.monotonic() > end:
                raise TimeoutError(f"{what} did not become true; console: {self.complaints}")
            time.sleep(0.02)
        return value

    def upload(self, selector: str, *paths: Path) -> None:
        """Chooses files in a file input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def press(self, key: str) -> None:
        """Presses and lets go of a key."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        code = {"Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code.get(key, 40)}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def names(self) -> set[tuple[str, str]]:
        """Lists role and name of everything in the accessibility tree."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return {
            (node["role"]["value"], node["name"]["value"])
            for node in nodes
            if not node["ignored"] and "name" in node
        }

    def _send(self, method: str, session: str, parameters: dict[str, Any]) -> int:
        with self._lock:
            self._count += 1
            message = {"id": self._count, "method": method, "params": parameters}
            if session:
                message["sessionId"] = session
            os.write(self._write, json.dumps(message).encode() + b"\0")
            return self._count

    def _listen(self, read: int) -> None:
        with open(read, "rb", buffering=0) as stream:
            rest = b""
            while part := stream.read(2**16):
                *messages, rest = (rest + part).split(b"\0")
                for message in map(json.loads, messages):
                    if "id" in message:
                        self._answers.put(message)
                    else:
                        self._notice(message["method"], message["params"])

    def _notice(self, method: str, event: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.complaints.append(details.get("exception", details).get("description", "thrown"))
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning"):
            self.complaints.append(" ".join(str(arg.get("value")) for arg in event["args"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            self.complaints.append(event["entry"]["text"])
        elif method == "Target.attachedToTarget" and self._session:
            for name in ("Network.enable", "Runtime.enable", "Runtime.runIfWaitingForDebugger"):
                self._send(name, event["sessionId"], {})


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Starts a browser with a new profile, and ends all its processes on leaving."""
    program = chromium()
    if program is None:
        raise RuntimeError("there is no Chromium; run `apt-get install chromium`")
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    # Chromium reads from descriptor 3 and writes to descriptor 4.
    redirect = f'exec 103<&{in_read} 104>&{out_write} && exec 3<&103 4>&104 && exec "$@"'
    # Its sockets lie in TMPDIR, and a socket's path has no more than 107 characters.
    with tempfile.TemporaryDirectory(prefix="tab-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            ["bash", "-c", redirect, "bash", program, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(in_read, out_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": profile},
            start_new_session=True,
        )
        os.close(in_read)
        os.close(out_write)
        try:
            yield Browser(process, in_write, out_read)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(in_write)
