"""Counts what an idle gateway sends and receives, with IP headers, and works
out a day of it with the defaults. As root; the programs have to be built before."""

import tempfile
import time
from pathlib import Path

from place import DEVICE, Place

# All in seconds: a day, and the defaults of hub.keep_alive and hub.sas_ttl, of
# which the daemon uses this share before it renews the token.
DAY = 24 * 60 * 60
KEEP_ALIVE, SAS_TTL, RENEW = 4 * 60, 60 * 60, 0.85
# What the daemon logs when the hub has accepted it.
CONNECTED = rf"connected to \S+ as {DEVICE}"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="iotdm-thrift-") as directory:
        place = Place(Path(directory), seed=1)
        try:
            first = start(place, 'hub.keep_alive = "1000s"')
            nothing = over(place, 60)
            place.stop()
            start(place, 'hub.keep_alive = "2s"')
            ping = over(place, 60) / 30
            place.stop()
            start(place, 'hub.keep_alive = "1000s"\nhub.sas_ttl = "10s"')
            done = "reconnecting with a new token"
            settled(place)
            renewed, before = len(place.said(done)), place.line.bytes
            place.wait("renewals", lambda: len(place.said(done)) >= renewed + 8)
            settled(place)
            count = len(place.said(done)) - renewed
            renewal = (place.line.bytes - before) / count
            resumed, full = len(place.said("Resumed")), len(place.said(r"\(Full"))
            place.stop()
        finally:
            place.close()
    pings, renewals = DAY / KEEP_ALIVE, DAY / (SAS_TTL * RENEW)
    day = pings * ping + renewals * renewal
    print(f"first connection, twin read and reported: {first} bytes")
    print(f"60 s in which nothing is due: {nothing} bytes")
    print(f"one keep-alive: {ping:.0f} bytes; one renewal of the token: {renewal:.0f} bytes")
    print(f"handshakes in all: {full} full, {resumed} resumed")
    print(f"an idle day: {pings:.0f} keep-alives and {renewals:.1f} renewals, {day / 1024:.0f} KiB")


def start(place: Place, settings: str) -> int:
    """Starts the daemon; the bytes until it is silent."""
    before, connections = place.line.bytes, len(place.said(CONNECTED))
    place.start(settings)
    place.wait("the daemon's connection", lambda: len(place.said(CONNECTED)) > connections)
    settled(place)
    return place.line.bytes - before


def settled(place: Place) -> None:
    """Returns once nothing has passed for a second."""
    seen = -1
    while seen != place.line.bytes:
        seen = place.line.bytes
        time.sleep(1)


def over(place: Place, seconds: int) -> int:
    """The bytes that pass in so many seconds."""
    before = place.line.bytes
    # Not a wait for an event: the time is what is measured.
    time.sleep(seconds)
    return place.line.bytes - before


if __name__ == "__main__":
    main()
