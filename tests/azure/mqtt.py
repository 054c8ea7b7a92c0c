"""A device at the level of MQTT 3.1.1's packets, which the questions are about; no client in between has a say."""

import json
import socket
import struct
import time
from typing import NamedTuple

from rest import API, Hub

CONNACK, PUBLISH, PUBACK, SUBACK = 2, 3, 4, 9

# Seconds for an answer; real hubs take one or two.
PATIENCE = 15


class Packet(NamedTuple):
    kind: int
    flags: int
    body: bytes

    @property
    def topic(self) -> str:
        return self.body[2:2 + struct.unpack("!H", self.body[:2])[0]].decode()

    @property
    def payload(self) -> bytes:
        # Behind the topic, and the packet id where there is one.
        start = 2 + struct.unpack("!H", self.body[:2])[0] + (2 if self.flags & 6 else 0)
        return self.body[start:]


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(data)) + data


def packet(first: int, body: bytes) -> bytes:
    length, rest = b"", len(body)
    while True:
        length += bytes([rest % 128 | (128 if rest > 127 else 0)])
        rest //= 128
        if not rest:
            return bytes([first]) + length + body


class Device:
    """A connection of a device; `code` is its CONNACK's, None where the hub closed without one."""

    def __init__(self, hub: Hub, device: str, key: bytes, *, will: tuple[str, bytes] | None = None,
                 seconds: int = 3600) -> None:
        raw = socket.create_connection((hub.host, hub.mqtt_port), timeout=PATIENCE)
        self._socket = hub.tls().wrap_socket(raw, server_hostname=hub.host)
        self._socket.settimeout(PATIENCE)
        self._id = 0
        flags = 0xC2 | (0x04 if will else 0)  # user name, password, clean session
        body = text("MQTT") + bytes([4, flags]) + struct.pack("!H", 240) + text(device)
        if will:
            body += text(will[0]) + text(will[1])
        password = hub.sign(f"{hub.host}/devices/{device}", key, seconds=seconds)
        body += text(f"{hub.host}/{device}/?api-version={API}") + text(password)
        self._socket.sendall(packet(0x10, body))
        answer = self.read()
        self.code = answer.body[1] if answer and answer.kind == CONNACK else None

    def read(self, patience: float = PATIENCE) -> Packet | None:
        """The next packet; None once the hub has closed. Raises TimeoutError where nothing comes."""
        self._socket.settimeout(patience)
        try:
            head = self._take(1)
            if not head:
                return None
            length, shift = 0, 0
            while True:
                byte = self._take(1)[0]
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            return Packet(head[0] >> 4, head[0] & 15, self._take(length))
        except (ConnectionError, IndexError):
            return None
        except OSError as problem:
            if isinstance(problem, TimeoutError):
                raise
            return None

    def _take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            news = self._socket.recv(count - len(data))
            if not news:
                return b""
            data += news
        return data

    def wait_for(self, kind: int, topic: str = "") -> Packet | None:
        """The next packet of a kind, to a topic that begins so; None once the hub has closed."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            answer = self.read(max(0.1, end - time.monotonic()))
            if answer is None:
                return None
            if answer.kind == kind and (not topic or answer.topic.startswith(topic)):
                return answer
        raise TimeoutError

    def subscribe(self, *filters: str) -> None:
        self._id += 1
        body = struct.pack("!H", self._id) + b"".join(text(one) + b"\0" for one in filters)
        self._socket.sendall(packet(0x82, body))
        self.wait_for(SUBACK)

    def publish(self, topic: str, payload: bytes = b"", qos: int = 0) -> None:
        self._id += 1
        number = struct.pack("!H", self._id) if qos else b""
        self._socket.sendall(packet(0x30 | qos << 1, text(topic) + number + payload))

    def report(self, patch: dict) -> str:
        """Sends reported properties; the status of the answer."""
        self.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", json.dumps(patch).encode())
        answer = self.wait_for(PUBLISH, "$iothub/twin/res/")
        return answer.topic.split("/")[3] if answer else "closed"

    def close(self) -> None:
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()
