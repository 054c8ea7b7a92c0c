"""One hub, as a service sees it: signed requests that wait where the hub throttles, and a list of all that was made."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

API = "2021-04-12"

# Seconds between two requests of a kind that one unit of the free tier allows: 100 changes of identities and 20 queries
# a minute. (Source: "IoT Hub quotas and throttling".)
PACE = {"registry": 0.7, "query": 3.1, "job": 0.7}

# How often, and how long in seconds at first, a request is tried again that was throttled.
TRIES, FIRST_WAIT = 6, 5


class Unusable(Exception):
    """The hub cannot be asked at all; the text says why and what to do."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def body(self):
        return json.loads(self.text) if self.text else None

    def error(self) -> tuple[str, str]:
        """The error's name or number, and its message without what differs from time to time."""
        name = self.headers.get("iothub-errorcode", "")
        body = self.body if self.text.startswith("{") else {}
        if "Message" not in body:
            return name or str(body.get("errorCode", "")), str(body.get("message", ""))
        message = body["Message"]
        if message.startswith("{"):
            inner = json.loads(message)
            return str(inner.get("errorCode", name)), str(inner.get("message", ""))
        return name, message.partition(";")[2]


@dataclass
class Hub:
    """A hub by its connection string; `paced` is set for the real one, whose quotas are small."""

    host: str
    policy: str
    key: bytes
    port: int = 443
    mqtt_port: int = 8883
    ca_file: str | None = None
    paced: bool = True
    prefix: str = ""
    made: list[str] = field(default_factory=list)  # paths, in the order of their making
    requests: int = 0
    throttled: int = 0
    _next: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, text: str, source: str, **options) -> "Hub":
        """Reads a connection string of a service; `source` is what messages call it."""
        parts = dict(part.split("=", 1) for part in text.strip().split(";") if "=" in part)
        if "DeviceId" in parts:
            raise Unusable(f"{source} has a device's connection string; take that of a shared access policy (iothubowner)")
        missing = [name for name in ("HostName", "SharedAccessKeyName", "SharedAccessKey") if not parts.get(name)]
        if missing:
            raise Unusable(f"{source} has no connection string of a hub: {', '.join(missing)} is missing")
        try:
            key = base64.b64decode(parts["SharedAccessKey"], validate=True)
        except ValueError:
            raise Unusable(f"{source}: SharedAccessKey is no base64; was it copied whole?") from None
        host, _, port = parts["HostName"].partition(":")
        if port and not port.isdigit():
            raise Unusable(f"{source}: HostName {parts['HostName']} has no number for a port")
        return cls(host, parts["SharedAccessKeyName"], key, int(port or 443), **options)

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)

    def sign(self, resource: str, key: bytes, policy: str | None = None, seconds: int = 3600) -> str:
        """A token for what the unencoded `resource` names."""
        where, expiry = urllib.parse.quote(resource, safe=""), int(time.time()) + seconds
        mac = hmac.new(key, f"{where}\n{expiry}".encode(), hashlib.sha256).digest()
        token = f"SharedAccessSignature sr={where}&sig={urllib.parse.quote(base64.b64encode(mac), safe='')}&se={expiry}"
        return f"{token}&skn={policy}" if policy else token

    def check(self) -> None:
        """Raises where the hub cannot be reached or the key does not do."""
        for path in ("/devices?top=1", f"/twins/{self.prefix}-nobody", "/configurations?top=1"):
            try:
                answer = self.ask("GET", path)
            except socket.gaierror as problem:
                raise Unusable(f"the name {self.host} is not known ({problem.strerror}); is there a network, and is the "
                               "name right?") from None
            except ssl.SSLCertVerificationError as problem:
                raise Unusable(f"{self.host}:{self.port} shows a certificate that is not trusted "
                               f"({problem.verify_message}); a private CA is named with --ca-file") from None
            except (OSError, http.client.HTTPException) as problem:
                raise Unusable(f"{self.host}:{self.port} cannot be reached: {problem}") from None
            if answer.status == 401:
                raise Unusable(f"{self.host} refuses the policy {self.policy} ({path.split('?')[0]}: 401): the key is "
                               "wrong or was renewed, or the policy lacks a right; iothubowner has all")
            if answer.status not in (200, 404):
                raise Unusable(f"{self.host} answers {path} with {answer.status}: {answer.text[:200]}")
        try:
            socket.create_connection((self.host, self.mqtt_port), timeout=20).close()
        except OSError as problem:
            raise Unusable(f"{self.host}:{self.mqtt_port}, the port of MQTT, cannot be reached ({problem}): does a "
                           "firewall let HTTPS out alone? Another port is named with --mqtt-port") from None

    def ask(self, method: str, path: str, body=None, headers: dict | None = None, kind: str = "") -> Answer:
        """Puts a request, at the pace of its `kind`, and again as long as the hub throttles."""
        path += ("&" if "?" in path else "?") + f"api-version={API}"
        name = self.host if self.port == 443 else f"{self.host}:{self.port}"
        data = None if body is None else json.dumps(body).encode()
        wait = FIRST_WAIT
        for attempt in range(TRIES):
            self._keep_pace(kind)
            sent = {"Authorization": self.sign(name, self.key, self.policy), "Content-Type": "application/json",
                    **(headers or {})}
            connection = http.client.HTTPSConnection(self.host, self.port, timeout=120, context=self.tls())
            with contextlib.closing(connection):
                connection.request(method, path, data, sent)
                response = connection.getresponse()
                answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()},
                                response.read().decode(errors="replace"))
            self.requests += 1
            if answer.status not in (429, 503) or attempt == TRIES - 1:
                return answer
            self.throttled += 1
            asked = answer.headers.get("retry-after", "")
            time.sleep(float(asked) if asked.isdigit() else wait)
            wait *= 2
        raise AssertionError("unreachable")

    def _keep_pace(self, kind: str) -> None:
        if not self.paced or kind not in PACE:
            return
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next.get(kind, now))
            self._next[kind] = at + PACE[kind]
        time.sleep(at - now)

    # What is made, and its end

    def make(self, path: str, body: dict, kind: str = "registry", headers: dict | None = None) -> Answer:
        """PUTs something that is removed in the end, also where the answer never comes."""
        if f"/{self.prefix}" not in path:
            raise AssertionError(f"{path} is not among what this run may make")
        if path not in self.made:
            self.made.append(path)
        return self.ask("PUT", path, body, headers, kind)

    def device(self, name: str, **fields) -> dict:
        """A new device; its identity."""
        id_ = f"{self.prefix}-{name}"
        answer = self.make(f"/devices/{id_}", {"deviceId": id_, **fields})
        if answer.status != 200:
            raise RuntimeError(f"no device could be made: {answer.status} {answer.text[:200]}")
        return answer.body

    def remove_all(self) -> list[str]:
        """Removes what was made, the newest first; what could not be removed."""
        left = []
        for path in reversed(self.made):
            try:
                gone = self.remove(path)
            except (OSError, http.client.HTTPException):
                gone = False
            if not gone:
                left.append(path)
        self.made = left
        return left

    def remove(self, path: str) -> bool:
        if path.startswith("/jobs/"):
            # Nobody can delete a job; one that has ended is forgotten by the hub itself.
            return self.ask("POST", f"{path}/cancel", kind="job").status in (200, 204, 400, 404, 405, 409)
        return self.ask("DELETE", path, headers={"If-Match": "*"}, kind="registry").status in (200, 204, 404)

    def left_behind(self, prefix: str) -> list[str]:
        """What earlier runs have left, by its name."""
        found = [f"/devices/{one['deviceId']}" for one in self.ask("GET", "/devices?top=1000", kind="registry").body]
        found += [f"/configurations/{one['id']}" for one in self.ask("GET", "/configurations?top=20").body]
        return [path for path in found if path.rpartition("/")[2].startswith(prefix)]


def read_connection_string(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is no text"
        raise Unusable(f"cannot read {file}: {reason}") from None
