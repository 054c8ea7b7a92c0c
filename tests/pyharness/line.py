"""Two network namespaces and the line between them, on which packets can be lost, late, or gone without a word.

The kernel of a container seldom has netem, so the packets pass through this process, by two TUN devices.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time

HUB, GATEWAY = "10.77.0.1", "10.77.0.2"
HUB6, GATEWAY6 = "fd77::1", "fd77::2"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


class Line:
    """The line is up from the start; its faults are attributes that can be changed at any time."""

    def __init__(self, seed: int) -> None:
        self.loss = 0.0  # of packets, in each direction
        self.delay = 0.0  # seconds, in each direction
        self.dead = False  # nothing passes, and nobody is told
        self.dead6 = False  # the same of IPv6 alone
        self.bytes = 0  # of IPv4 that have passed both ways, with their headers; the kernel itself speaks IPv6
        self._random = random.Random(seed)
        self._wake, self._woken = os.pipe()
        mark = f"{os.getpid() % 100000}"
        self.hub, self.gateway = f"iotdm-hub-{mark}", f"iotdm-gw-{mark}"
        self._names = f"ih{mark}", f"ig{mark}"
        self._devices = [self._end(self.hub, self._names[0], (HUB, GATEWAY), (HUB6, GATEWAY6)),
                         self._end(self.gateway, self._names[1], (GATEWAY, HUB), (GATEWAY6, HUB6))]
        threading.Thread(target=self._carry, daemon=True).start()

    def close(self) -> None:
        os.write(self._woken, b"x")
        for namespace in (self.hub, self.gateway):
            subprocess.run(["ip", "netns", "delete", namespace], check=False)

    def touch(self) -> None:
        """The gateway gets an address: what a network that comes back looks like."""
        for verb in ("add", "del"):
            ip("-n", self.gateway, "address", verb, "192.0.2.1/32", "dev", "lo")

    def plug(self, state: str) -> None:
        """The gateway's end goes "down" or comes "up", which its kernel knows."""
        ip("-n", self.gateway, "link", "set", self._names[1], state)
        if state == "up":
            ip("-n", self.gateway, "-6", "address", "replace", GATEWAY6, "peer", HUB6, "dev", self._names[1], "nodad")

    def _end(self, namespace: str, name: str, *addresses: tuple[str, str]) -> int:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        ip("netns", "add", namespace)
        ip("link", "set", name, "netns", namespace)
        ip("-n", namespace, "link", "set", "lo", "up")
        # Up first: while it is down, the kernel makes no route to the peer of an IPv6 address.
        ip("-n", namespace, "link", "set", name, "up")
        for own, peer in addresses:
            nodad = ["nodad"] if ":" in own else []
            ip("-n", namespace, "address", "add", own, "peer", peer, "dev", name, *nodad)
        return device

    def _carry(self) -> None:
        due: list[tuple[float, int, int, bytes]] = []
        count = 0
        while True:
            patience = max(0.0, due[0][0] - time.monotonic()) if due else None
            ready, _, _ = select.select([*self._devices, self._wake], [], [], patience)
            if self._wake in ready:
                return
            for device in ready:
                packet = os.read(device, 65536)
                six = packet[0] >> 4 == 6
                if self.dead or (six and self.dead6) or self._random.random() < self.loss:
                    continue
                other = self._devices[1 - self._devices.index(device)]
                count += 1
                heapq.heappush(due, (time.monotonic() + self.delay, count, other, packet))
            while due and due[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(due)
                self.bytes += len(packet) if packet[0] >> 4 == 4 else 0
                try:
                    os.write(device, packet)
                except OSError:
                    pass  # the end is being taken down


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
