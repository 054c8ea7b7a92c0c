"""A browser without a window, told what to do over the pipes of its debugging protocol.

Nothing but Chromium itself is needed: messages are JSON with a NUL after each.
"""

import base64
import hashlib
import itertools
import json
import os
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

from pyharness.process import PATIENCE

# Waits in the page for the next change that makes a condition true.
WHEN = """new Promise((done) => {
  const look = () => { if (%s) { watcher.disconnect(); done(true); } };
  const watcher = new MutationObserver(look);
  watcher.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
  look();
})"""


def installed() -> str | None:
    """The path of Chromium, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def fingerprint(host: str, port: int) -> str:
    """The public key of a server's certificate, as Chromium is told to trust it."""
    certificate = ssl.get_server_certificate((host, port))
    key = subprocess.run(["openssl", "x509", "-pubkey", "-noout"], input=certificate.encode(), capture_output=True,
                         check=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=key, capture_output=True, check=True).stdout
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


class Browser:
    """A running browser with one page; it trusts the server with the public key `trusted`, and no other in vain."""

    def __init__(self, profile: Path, trusted: str) -> None:
        self.faults: list[str] = []  # what the browser complained of
        self.requests: list[str] = []  # what it has asked for
        self._loaded = 0
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict] = {}
        self._news = threading.Condition()
        self._ended = False
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        self._log = open(profile.with_suffix(".log"), "wb")  # noqa: SIM115 as long as the browser
        # The protocol wants descriptors 3 and 4, which only a shell can name.
        options = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run",
                   "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server", "--disable-background-networking",
                   f"--ignore-certificate-errors-spki-list={trusted}"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")
        shell = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        self._process = subprocess.Popen(["bash", "-c", shell, "browser", installed(), *options, "about:blank"],
                                         pass_fds=[to_read, to_write], stdout=self._log, stderr=self._log)
        os.close(to_read)
        os.close(to_write)
        threading.Thread(target=self._read, daemon=True).start()
        self._session = None
        pages = [one for one in self.tell("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self.tell("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.tell(f"{domain}.enable")

    def _read(self) -> None:
        rest = b""
        while news := os.read(self._from, 1 << 20):
            *whole, rest = (rest + news).split(b"\0")
            with self._news:
                for message in map(json.loads, whole):
                    self._note(message)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _note(self, message: dict) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            return
        said = message.get("params", {})
        match message["method"]:
            case "Runtime.exceptionThrown":
                details = said["exceptionDetails"]
                self.faults.append(details.get("exception", {}).get("description") or details["text"])
            case "Log.entryAdded" if said["entry"]["level"] == "error":
                self.faults.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
            case "Page.loadEventFired":
                self._loaded += 1
            case "Network.requestWillBeSent":
                self.requests.append(said["request"]["url"])

    def tell(self, method: str, **parameters) -> dict:
        """Carries out one command of the protocol; its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        with self._news:
            self._news.wait_for(lambda: number in self._answers or self._ended, PATIENCE)
            answer = self._answers.pop(number, None)
        assert answer is not None, f"no answer to {method} {parameters}"
        assert "error" not in answer, f"{method} {parameters}: {answer['error']}"
        return answer["result"]

    def open(self, url: str) -> None:
        """Goes to an address, as if it were typed."""
        loaded = self._loaded
        self.tell("Page.navigate", url=url)
        with self._news:
            assert self._news.wait_for(lambda: self._loaded > loaded or self._ended, PATIENCE), f"{url} does not load"

    def run(self, script: str):
        """What an expression of JavaScript comes to."""
        result = self.tell("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, f"{script}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def when(self, condition: str) -> None:
        """Waits until a condition is true of the page; its text is told where it never is."""
        try:
            self.run(WHEN % condition)
        except AssertionError as problem:
            text = self.run("document.body.innerText")
            raise AssertionError(f"never {condition}:\n{text}\n{self.faults}") from problem

    def text(self, part: str) -> str:
        """The text of the element with that id."""
        return self.run(f"document.getElementById({json.dumps(part)}).textContent")

    def press(self, key: str, text: str = "") -> None:
        """Presses a key, and lets go of it."""
        code = {"Tab": 9, "Enter": 13}[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.tell("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.tell("Input.dispatchKeyEvent", type="keyUp", **common)

    def picture(self, file: Path) -> None:
        """Takes a picture of the whole page."""
        data = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        self._log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()
