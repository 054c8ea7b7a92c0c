"""What is done to a connection, with reboots requested meanwhile, and what is counted."""

import random
import time
import uuid
from collections import Counter

from place import DEVICE, MQTT, NAME, RELAY, SETTINGS, Place
from pyharness.line import HUB, HUB6

# What the daemon logs when the hub refuses its CONNECT, whichever code it gives.
REFUSED = rf"refused {DEVICE}: check|is not available to {DEVICE} now"
COUNTS = ["requested", "answered 200", "other answers", "no answer", "rebooted", "completed", "duplicates", "losses",
          "attempts"]


class Campaign:
    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.rows: dict[str, Counter] = {}
        self.remarks: dict[str, str] = {}
        # Open files and private memory around the reconnects.
        self.before = self.after = (0, 0)
        # The requests whose outcome was reported.
        self._ended: set[str] = set()
        self._random = random.Random(seed)

    def phase(self, name: str, act, *arguments) -> None:
        """Runs a phase and settles its requests."""
        row = self.rows[name] = Counter()
        self.remarks[name] = "not ended"
        before, began = self.place.relay("count"), time.monotonic()
        accepted: list[str] = []
        remark = act(self, row, accepted, *arguments)
        self.remarks[name] = f"{time.monotonic() - began:.0f} s" + (f"; {remark}" if remark else "")
        row["attempts"] += self.place.relay("count") - before
        for request in accepted:
            self._settle(request)
        print(f"{name}: {dict(row)}; {self.remarks[name]}", flush=True)
        self._count(row, accepted)

    def request(self, row: Counter, accepted: list[str], meanwhile=lambda: None) -> None:
        """Asks for one reboot, again with the same id while nobody answers, as an operator would, and waits for its end."""
        request = str(uuid.UUID(int=self._random.getrandbits(128)))
        row["requested"] += 1
        while True:
            status = self.place.invoke({"id": request, "reason": "campaign"}, connect_timeout=15, response_timeout=15)
            if status == 200:
                break
            row["no answer" if status < 100 else "other answers"] += 1
            # Nobody answered: iotdm-ctl's exit code. A device that refuses is wrong here, as no other request is pending.
            assert status < 100, f"{request}: {status}"
            meanwhile()
        row["answered 200"] += 1
        accepted.append(request)
        self._settle(request, meanwhile)

    def _settle(self, request: str, meanwhile=lambda: None) -> None:
        def ended():
            reboot = self.place.reported().get("reboot", {})
            return reboot.get("id") == request and reboot.get("status") in ("completed", "failed")
        if request not in self._ended:
            self.place.wait(f"the outcome of {request}", ended, meanwhile=meanwhile)
            self._ended.add(request)

    def _count(self, row: Counter, accepted: list[str]) -> None:
        for request in accepted:
            recorded = len(self.place.said(f"reboot {request} accepted and recorded"))
            rebooted = len(self.place.said(f"about to be rebooted for {request}"))
            completed = len(self.place.said(f"reboot {request} completed"))
            row["rebooted"] += rebooted
            row["completed"] += completed
            row["duplicates"] += max(0, rebooted - 1) + max(0, recorded - 1)
            row["losses"] += completed == 0

    def failures(self) -> int:
        return sum(row["duplicates"] + row["losses"] for row in self.rows.values())

    def __str__(self) -> str:
        width = max(map(len, self.rows), default=0)
        lines = [f"{'':<{width}}  " + "  ".join(COUNTS)]
        for name, row in self.rows.items():
            cells = "  ".join(f"{row[count]:>{len(count)}}" for count in COUNTS)
            lines.append(f"{name:<{width}}  {cells}  {self.remarks[name]}")
        total = sum(self.rows.values(), Counter())
        cells = "  ".join(f"{total[count]:>{len(count)}}" for count in COUNTS)
        return "\n".join([*lines, f"{'all':<{width}}  {cells}"])


def cut_at_random_bytes(campaign: Campaign, row: Counter, accepted: list[str], requests: int) -> None:
    place = campaign.place
    place.relay("cut")
    for _ in range(requests):
        # A network that comes and goes has the daemon try at once: else its back-off would make this take hours.
        campaign.request(row, accepted, meanwhile=place.line.touch)
    place.relay("pass")
    place.wait_connected(place.line.touch)


def lossy(campaign: Campaign, row: Counter, accepted: list[str], requests: int, loss: float) -> str:
    impaired(campaign, row, accepted, requests, "loss", loss)
    return f"{loss:.0%} of packets lost, each way"


def slow(campaign: Campaign, row: Counter, accepted: list[str], requests: int, delay: float) -> str:
    impaired(campaign, row, accepted, requests, "delay", delay)
    return f"{delay} s each way"


def impaired(campaign: Campaign, row: Counter, accepted: list[str], requests: int, fault: str, much: float) -> None:
    setattr(campaign.place.line, fault, much)
    for _ in range(requests):
        campaign.request(row, accepted)
    setattr(campaign.place.line, fault, 0.0)


def vanished(campaign: Campaign, row: Counter, accepted: list[str]) -> str:
    """The other end is gone without a word, while nothing is sent: the keep-alive finds it."""
    place = campaign.place
    silence = len(place.said("no longer answers"))
    place.line.dead = True
    began = time.monotonic()
    place.wait("the peer to be missed", lambda: len(place.said("no longer answers")) > silence)
    noticed = time.monotonic() - began
    place.line.dead = False
    place.wait_connected()
    campaign.request(row, accepted)
    return f"noticed after {noticed:.0f} s"


def mute(campaign: Campaign, row: Counter, accepted: list[str]) -> str:
    """What accepts TCP says nothing: a hub that hangs, or a proxy."""
    place = campaign.place
    silence = len(place.said("does not answer"))
    began = time.monotonic()
    place.relay("mute")
    place.wait("the silence to be said", lambda: len(place.said("does not answer")) > silence)
    noticed = time.monotonic() - began
    place.relay("pass")
    place.wait_connected(place.line.touch)
    campaign.request(row, accepted)
    return f"said after {noticed:.0f} s"


def mute_proxy(campaign: Campaign, row: Counter, accepted: list[str]) -> str:
    place = campaign.place
    place.stop()
    place.relay("mute")
    began = time.monotonic()
    place.start(f'hub.proxy = "http://{NAME}:{RELAY}"', port=MQTT)
    place.wait("the proxy to be named", lambda: place.said(f"the proxy {NAME}:{RELAY}, or {NAME}:{MQTT} behind it, does not answer"))
    noticed = time.monotonic() - began
    place.relay("pass")
    place.stop()
    place.start(SETTINGS)
    place.wait_connected()
    campaign.request(row, accepted)
    return f"said after {noticed:.0f} s"


def forgotten(campaign: Campaign, row: Counter, accepted: list[str]) -> str:
    """The hub no longer knows the device: the provisioning service is asked again, which makes it anew."""
    place = campaign.place
    place.stop()
    scope = place.enrol()
    place.start(place.provisioned(scope), string=False)
    place.wait_connected()
    done = place.ctl("device", "delete", DEVICE, "--yes")
    assert done.returncode == 0, done.stderr
    began = time.monotonic()
    place.wait("the device to be there again", lambda: place.ctl("device", "show", DEVICE).returncode == 0, 300)
    back = time.monotonic() - began
    place.wait_connected()
    campaign.request(row, accepted)
    place.stop()
    place.start(SETTINGS)
    place.wait_connected()
    return f"provisioned again after {back:.0f} s"


def unplugged(campaign: Campaign, row: Counter, accepted: list[str]) -> str:
    """The network is away for so long that the waits have grown, and comes back."""
    place = campaign.place
    place.line.plug("down")
    # Not a wait for an event: for so long the network is absent.
    time.sleep(70)
    place.line.plug("up")
    began = time.monotonic()
    place.wait_connected()
    connected = time.monotonic() - began
    campaign.request(row, accepted)
    return f"connected {connected:.1f} s after its return"


def refused(campaign: Campaign, row: Counter, _accepted: list[str], code: int, seconds: float) -> str:
    """CONNECT is refused: the attempts have to stay few, whatever the network does."""
    place = campaign.place
    refusals = len(place.said(REFUSED))
    place.fault("set", DEVICE, "refuse-connect", "--code", str(code), "--count", "1000000")
    place.relay("pass")
    began, before = time.monotonic(), place.relay("count")
    while time.monotonic() - began < seconds:
        place.line.touch()
        # Not a wait for an event: the time is what is measured.
        time.sleep(1)
    attempts = place.relay("count") - before
    # Else few attempts would say nothing.
    assert attempts > 0 and len(place.said(REFUSED)) > refusals, "the hub has refused nobody"
    place.fault("clear", DEVICE)
    return f"{attempts * 60 / seconds:.1f} attempts per minute"


def reconnects(campaign: Campaign, row: Counter, accepted: list[str], count: int) -> str:
    """Makes the daemon connect so many times; its open files and memory before and after."""
    place = campaign.place
    # The files and the memory that the first connections need stay.
    place.wait_connected()
    before, connections = place.size(), place.relay("count")
    place.relay("drop")
    place.wait("the reconnects", lambda: place.relay("count") >= connections + count, 10 * count, place.line.touch)
    place.relay("pass")
    place.wait_connected(place.line.touch)
    campaign.request(row, accepted)
    after = place.size()
    campaign.before, campaign.after = before, after
    return f"open files {before[0]} then {after[0]}, private memory {before[1]} KiB then {after[1]} KiB"


def renewals(campaign: Campaign, row: Counter, accepted: list[str], count: int) -> str:
    """Makes the daemon renew so many tokens, with calls all the while, every hundredth a reboot."""
    place = campaign.place
    place.stop()
    place.start('hub.sas_ttl = "5s"')
    place.wait_connected()
    done = "reconnecting with a new token"
    renewed, calls, lost = len(place.said(done)), 0, Counter()
    while len(place.said(done)) < renewed + count:
        calls += 1
        status = place.invoke({"check": True}, connect_timeout=10, response_timeout=10)
        if status != 200:
            lost[status] += 1
        # The device grants no more than 30 requests in an hour, those of the other phases among them.
        if calls % 100 == 0 and sum(row["requested"] for row in campaign.rows.values()) < 30:
            campaign.request(row, accepted)
    row["losses"] += lost.total()
    return f"{calls} calls besides, not answered: {dict(lost) or 'none'}"


def one_family_dead(campaign: Campaign, row: Counter, accepted: list[str]) -> str:
    """The hub's IPv6 address swallows everything, and it is the one that is tried first."""
    place = campaign.place
    place.stop()
    place.resolve(HUB6, HUB)
    place.line.dead6 = True
    began = time.monotonic()
    place.start(SETTINGS)
    place.wait_connected()
    connected = time.monotonic() - began
    campaign.request(row, accepted)
    place.line.dead6 = False
    place.resolve(HUB)
    return f"connected after {connected:.1f} s"
