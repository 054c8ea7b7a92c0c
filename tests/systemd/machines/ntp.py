"""A time server on the host's loopback that can be told to keep silent. RFC 4330."""

import contextlib
import socket
import struct
import threading
import time

# Seconds between 1900, where NTP begins to count, and 1970.
EPOCH = 2_208_988_800


class TimeServer:
    def __init__(self) -> None:
        self.answers = threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # NTP's only port; time clients cannot be told another.
        self._socket.bind(("127.0.0.1", 123))
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()

    def close(self) -> None:
        """Gives the port back for the next one."""
        # Linux says that nobody is connected, and wakes who receives all the same. Only closed, the socket would
        # stay open for as long as somebody waits on it.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._server.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                request, client = self._socket.recvfrom(512)
            except OSError:
                return
            if not request:
                return
            if self.answers.is_set() and len(request) >= 48:
                now = _timestamp()
                # No warning, version 4, a server; stratum 1; the request's own time comes back.
                answer = struct.pack("!BBbbII4s", 0b00_100_100, 1, 4, -20, 0, 0, b"LOCL")
                self._socket.sendto(answer + now + request[40:48] + now + _timestamp(), client)


def _timestamp() -> bytes:
    return struct.pack("!Q", int((time.time() + EPOCH) * 2**32))
