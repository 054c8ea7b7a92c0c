"""Does to a gateway's connection what networks, proxies and hubs do, with
reboots requested meanwhile, and counts what became of them. As root, with iproute2;
the programs have to be built before (cargo build)."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

import phases
from place import SETTINGS, Place


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True, help="repeats the line's and the relay's choices")
    parser.add_argument("--reconnects", type=positive, default=1000, metavar="N", help="each takes some 4 s")
    parser.add_argument("--renewals", type=positive, default=500, metavar="N")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave logs and state here")
    parser.add_argument("--only-renewals", action="store_true")
    arguments = parser.parse_args()
    # Leaves no namespace behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="iotdm-network-") as directory:
        if arguments.keep:
            arguments.keep.mkdir(parents=True)
        place = Place(arguments.keep or Path(directory), arguments.seed)
        campaign = phases.Campaign(place, arguments.seed)
        try:
            place.start(SETTINGS)
            place.wait_connected()
            if not arguments.only_renewals:
                faults(campaign, place, arguments.reconnects)
            campaign.phase(f"{arguments.renewals} renewals", phases.renewals, arguments.renewals)
            place.stop()
        finally:
            print(f"\nseed {arguments.seed}\n\n{campaign}\n", flush=True)
            place.close()
    return 1 if campaign.failures() else 0


def positive(text: str) -> int:
    """None would be a campaign that finds nothing wrong because it does nothing."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def faults(campaign: phases.Campaign, place: Place, reconnects: int) -> None:
    campaign.phase("cut at random bytes", phases.cut_at_random_bytes, 12)
    campaign.phase("30 % loss", phases.lossy, 5, 0.3)
    campaign.phase("2 s latency", phases.slow, 3, 1.0)
    campaign.phase("peer vanished", phases.vanished)
    campaign.phase("mute server", phases.mute)
    campaign.phase("mute proxy", phases.mute_proxy)
    campaign.phase("device forgotten", phases.forgotten)
    campaign.phase("unplugged", phases.unplugged)
    for code in (1, 2, 3, 4, 5):
        campaign.phase(f"CONNACK {code}", phases.refused, code, 60)
        place.stop()
        place.start(SETTINGS)
        place.wait_connected()
    campaign.phase(f"{reconnects} reconnects", phases.reconnects, reconnects)
    campaign.phase("IPv6 dead", phases.one_family_dead)


if __name__ == "__main__":
    sys.exit(main())
