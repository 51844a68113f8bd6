"""ONNX Runtime Web in a headless Chromium: serves a page, starts the browser, waits for answers.

Everything comes from a server on the loopback interface, under a path that nobody else knows; the
browser is told to resolve no other host. The page is `javascript/browser.html`.
"""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from export.runtimes.needs import JAVASCRIPT, chromium, node_modules

_TYPES: Final = {
    ".html": "text/html",
    ".mjs": "text/javascript",
    ".txt": "text/plain",
    ".wasm": "application/wasm",
}
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # it does not start as root otherwise, and the page is our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def main() -> None:
    """Answers the cases that the command line names.

    Raises:
        SystemExit: with one sentence, if the browser, the page or a model fails.
    """
    if len(sys.argv) != 4:
        raise SystemExit("expected ARTIFACT_DIR CASES_DIR ANSWERS_DIR")
    artifact, cases, answers = map(Path, sys.argv[1:])
    answers.mkdir(parents=True, exist_ok=True)
    folders = {
        "page": JAVASCRIPT,
        "ort": node_modules() / "onnxruntime-web" / "dist",
        "artifact": artifact,
        "cases": cases,
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    site = Site(folders, answers)
    with site, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        _browse(site, Path(profile), float(os.environ.get("RUNNER_TIMEOUT", "120")))


class Site(ThreadingHTTPServer):
    """Server of folders to read and a folder to write into, told by its visitor when to end.

    Attributes:
        folders: what can be read, by the first part of the path.
        answers: where files that are sent are written.
        prefix: secret start of every path.
        ended: set once the visitor has sent its last word.
        complaint: the last word; empty if all went well.
    """

    daemon_threads = True

    def __init__(self, folders: dict[str, Path], answers: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders = {name: folder.resolve() for name, folder in folders.items()}
        self.answers = answers
        self.prefix = f"/{secrets.token_urlsafe(16)}"
        self.ended = threading.Event()
        self.complaint = ""

    @property
    def address(self) -> str:
        """Address of the secret root."""
        return f"http://127.0.0.1:{self.server_address[1]}{self.prefix}"

    def __enter__(self) -> "Site":
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        folder, _, name = self._path().partition("/")
        root = self.server.folders.get(folder)
        path = root and (root / name).resolve()
        if root and path and path.is_relative_to(root) and path.is_file():
            self._reply(200, path.read_bytes(), _TYPES.get(path.suffix, "application/octet-stream"))
        else:
            self._reply(404)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        folder, _, name = self._path().partition("/")
        if folder == "answers" and re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
            (self.server.answers / name).write_bytes(content)
        elif folder == "end":
            self.server.complaint = content.decode()
        else:
            self._reply(404)
            return
        self._reply(204)
        if folder == "end":
            self.server.ended.set()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _path(self) -> str:
        prefix, path = self.server.prefix + "/", self.path
        return path.removeprefix(prefix) if path.startswith(prefix) else ""

    def _reply(self, status: int, content: bytes = b"", kind: str = "text/plain") -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)


def _browse(site: Site, profile: Path, seconds: float) -> None:
    """Opens the page and waits for its last word."""
    program = chromium()
    if program is None:
        raise SystemExit("there is no Chromium")
    log = profile / "log.txt"
    command = [program, *_FLAGS, f"--user-data-dir={profile}", f"{site.address}/page/browser.html"]
    with log.open("wb") as stream:
        browser = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**os.environ, "HOME": str(profile)},
            start_new_session=True,
        )
    try:
        _wait(site, lambda: browser.poll() is not None, seconds, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(browser.pid, signal.SIGKILL)  # its whole family: the profile is thrown away
        browser.wait()


def _wait(site: Site, has_died: Callable[[], bool], seconds: float, log: Path) -> None:
    end = time.monotonic() + seconds
    while not site.ended.wait(0.1):
        if has_died():
            lines = [line for line in log.read_text(errors="replace").splitlines() if line]
            raise SystemExit(f"Chromium ended before the page did: {(lines or ['no word'])[-1]}")
        if time.monotonic() > end:
            raise SystemExit(f"the page gave no answer within {seconds:g} seconds")
    if site.complaint:
        raise SystemExit(site.complaint)


if __name__ == "__main__":
    main()
