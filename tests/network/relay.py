"""A TCP relay in the hub's namespace: what middleboxes and sick servers do to connections."""

import random
import select
import socket
import struct
import sys
import threading

# The words that the relay is told on standard input, one a line; it answers each with the
# number of connections so far, and "count", which changes nothing, as well.
FAULTS = {
    "pass": "each connection is passed on",
    "cut": "each connection is reset after a random number of bytes",
    "drop": "each connection is reset once the server has answered",
    "mute": "connections are accepted and nothing is ever said",
}


class Relay:
    def __init__(self, port: int, server: tuple[str, int], seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._fault = "pass"
        self.connections = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, fault: str) -> None:
        """From now on, and for the connections that are open as well: those are reset."""
        assert fault in FAULTS, f"no fault {fault!r}"
        self._fault = fault
        while self._open:
            reset(self._open.pop())

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            self.connections += 1
            threading.Thread(target=self._serve, args=[client, self._fault], daemon=True).start()

    def _serve(self, client: socket.socket, fault: str) -> None:
        self._open.append(client)
        if fault == "mute":
            return
        left = {"cut": self._random.randint(1, 5000), "drop": 1}.get(fault)
        server = socket.create_connection(self._server)
        try:
            while True:
                for end in select.select([client, server], [], [])[0]:
                    data = end.recv(16384)
                    if not data:
                        return
                    if left is not None and (end is server or fault == "cut"):
                        data, left = data[:left], left - len(data)
                    (server if end is client else client).sendall(data)
                    if left is not None and left <= 0:
                        return
        except OSError:
            pass
        finally:
            reset(client)
            server.close()


def reset(connection: socket.socket) -> None:
    """Closes it as a middlebox does that has forgotten it."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()


def main() -> None:
    port, server, seed = int(sys.argv[1]), sys.argv[2].rsplit(":", 1), int(sys.argv[3])
    relay = Relay(port, (server[0], int(server[1])), seed)
    print("listens", flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word != "count":
            relay.set(word)
        print(relay.connections, flush=True)


if __name__ == "__main__":
    main()
