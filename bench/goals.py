"""What the numbers should be, and whether they are."""

from table import Table, number

AGENTD, SUB, ECHO, CTL, EMULATOR = "iotdm-agentd", "mosquitto_sub", "echo client", "iotdm-ctl", "iotdm-emulator"
DEVICE, OPERATOR = "azure-iot-device (Python)", "azure-iot-hub (Python)"
FLEET, HUB = "fleet of 10,000", "hub of 10,000"


class Goals:
    def __init__(self, table: Table) -> None:
        self.median = table.median
        self.lines = ["| what | goal | measured, medians | |", "|---|---|---|---|"]

    def at_most(self, what: str, goal: str, value: tuple[str, str], limit: float | tuple[str, str],
                factor: float = 1, plus: float = 0) -> None:
        """`value` ≤ `factor` × `limit` + `plus`; that it is not known where one of them was not measured."""
        measured = self.median(*value)
        other = self.median(*limit) if isinstance(limit, tuple) else limit
        if measured is None or other is None:
            return self.unknown(what, goal)
        bound = factor * other + plus
        beside = f", bound {number(bound)}" if isinstance(limit, tuple) else ""
        self.lines.append(f"| {what} | {goal} | {number(measured)}{beside} | {'met' if measured <= bound else 'missed'} |")

    def unknown(self, what: str, goal: str) -> None:
        """Said, so that a goal does not count as met by being gone from the table."""
        self.lines.append(f"| {what} | {goal} | – | not measured |")

    def at_least(self, what: str, goal: str, value: tuple[str, str], limit: tuple[str, str], factor: float = 1) -> None:
        measured, other = self.median(*value), self.median(*limit)
        if measured is None or other is None:
            return self.unknown(what, goal)
        bound = factor * other
        self.lines.append(f"| {what} | {goal} | {number(measured)}, bound {number(bound)} "
                          f"| {'met' if measured >= bound else 'missed'} |")


def goals(table: Table) -> str:
    them = Goals(table)
    alone, beside = "memory: private, by itself, KiB", "memory: private, beside the others, KiB"
    them.at_most("daemon, private memory, by itself", "≤ 3,000 KiB", (alone, AGENTD), 3000)
    them.at_most("daemon, resident memory, by itself", "≤ 5,000 KiB", ("memory: resident, by itself, KiB", AGENTD), 5000)
    them.at_most("daemon, memory of no file, by itself", "≤ 700 KiB", ("memory: of no file, by itself, KiB", AGENTD), 700)
    them.at_most("daemon, private memory, where others have OpenSSL in memory, too", "≤ mosquitto_sub + 2 MiB",
                 (beside, AGENTD), (beside, SUB), plus=2048)
    them.at_most("daemon, private memory, each by itself", "≤ 1/8 of the Python client", (alone, AGENTD), (alone, DEVICE), 1 / 8)
    for what in table.values:
        if what.startswith("memory: private, after ") and "first" not in what:
            first = what.replace("after", "before") if "methods" in what else "memory: private, after the first reconnect, KiB"
            after = what.removeprefix("memory: private, ").removesuffix(", KiB")
            them.at_most(f"daemon, memory {after}", "no growth (within 128 KiB)", (what, AGENTD), (first, AGENTD), plus=128)
    # Ten signs of life for the watchdog, two or three of them for the hub as well, and
    # its answers.
    them.at_most("daemon, wake-ups in 10 idle minutes", "≤ 16: one timer for watchdog and keep-alive",
                 ("idle for 10 minutes: voluntary context switches", AGENTD), 16)
    for whom in table.values.get("size: stripped binary, KiB", {}):
        them.at_most(f"{whom}, stripped", "≤ 4 MiB", ("size: stripped binary, KiB", whom), 4096)
    for whom in table.values.get("size: package, KiB", {}):
        them.at_most(f"{whom}, package", "≤ 1,400 KiB", ("size: package, KiB", whom), 1400)
    started = "start: exec to method answered, ms"
    them.at_most("daemon, exec to READY=1", "≤ 10 ms", ("start: exec to READY=1, ms", AGENTD), 10)
    them.at_most("daemon, exec to methods answered", "≤ 0.8 × mosquitto_sub subscribed",
                 (started, AGENTD), (started, f"{SUB}, exec to subscribed"), 0.8)
    for percentile in ("median", "99th percentile"):
        trip = f"method: round trip, {percentile}, ms"
        them.at_most(f"daemon, method, {percentile}", "≤ 1.05 × the echo client", (trip, AGENTD), (trip, ECHO), 1.05)
    cost = "method: CPU for each call, ms"
    them.at_most("daemon, method, CPU", "≤ 1.3 × the echo client", (cost, AGENTD), (cost, ECHO), 1.3)
    them.at_most("daemon, reply to logind called", "≤ 30 ms", ("reboot: reply at the operator to logind called, ms", AGENTD), 30)
    them.at_most("daemon, TLS done to rebootTime acknowledged", "2 round trips (within 0.2)",
                 ("network: TLS done to rebootTime acknowledged, round trips", AGENTD), 2.2)
    trip = them.median("network: round trip, ms", SUB)
    them.at_most("daemon, network up to rebootTime acknowledged", "≤ mosquitto_sub connected + 2 round trips",
                 ("network up to rebootTime acknowledged, ms", AGENTD), ("network: exec to connected, ms", SUB), plus=2 * (trip or 0))
    for task in ("twin show", "invoke", "--version"):
        for measure in ("ms", "peak of memory, KiB"):
            what = f"ctl: {task}, {measure}"
            unit = "time" if measure == "ms" else "memory"
            them.at_most(f"ctl, {task}, {unit}", "≤ 1.5 × curl", (what, CTL), (what, "curl"), 1.5)
            if task != "--version":
                them.at_most(f"ctl, {task}, {unit}", "≤ 1/10 of the Python script", (what, CTL), (what, OPERATOR), 1 / 10)
    them.at_most("ctl, 10,000 devices, memory", "≤ 64 MiB", (f"{FLEET}: peak of memory, KiB", CTL), 64 * 1024)
    per, rate = f"{FLEET}: CPU for each device, ms", f"{FLEET}: devices a second"
    them.at_most("ctl, 10,000 devices, CPU", "less than the emulator", (per, CTL), (per, "the emulator meanwhile"))
    them.at_least("ctl, 10,000 devices, a second", "≥ 0.8 × calls and twins alone", (rate, CTL), (rate, "calls and twins alone"), 0.8)
    them.at_most("ctl, twin show, memory", "≤ 4.5 MiB", ("ctl: twin show, peak of memory, KiB", CTL), 4608)
    for how in ("planned", "rebooted"):
        them.at_most(f"ctl, 100,000 devices {how}, memory", "≤ 128 MiB",
                     (f"100,000 pretended devices {how}: peak of memory, KiB", CTL), 128 * 1024)
        them.at_most(f"ctl, a device of 100,000 {how}, memory", "≤ 0.3 KiB",
                     (f"pretended devices {how}: memory for each beyond 10,000, KiB", CTL), 0.3)
    them.at_most("emulator, exec to ready", "≤ 100 ms", ("emulator: exec to ready, ms", f"{EMULATOR}, new directory"), 100)
    them.at_most("emulator, exec to ready with 10,000 devices", "≤ 6 × with an empty directory",
                 (f"{HUB}: exec to ready with these devices, ms", EMULATOR),
                 ("emulator: exec to ready, ms", f"{EMULATOR}, new directory"), 6)
    them.at_most("emulator, memory for each connection", "≤ 15 KiB",
                 (f"{HUB}: memory for each connection, KiB", EMULATOR), 15)
    reports = "hub of 1,000: durable reports a second"
    them.at_least("emulator, durable reports", "≥ 0.8 × without a disk",
                  (reports, EMULATOR), (reports, f"{EMULATOR}, store in memory"), 0.8)
    them.at_least("emulator, durable reports to twins of 32 KB", "≥ 0.7 × to twins of 1 KB",
                  (reports, f"{EMULATOR}, twins of 32 KB"), (reports, EMULATOR), 0.7)
    trips, cost = f"{HUB}: method round trips a second", f"{HUB}: CPU for each method, µs"
    them.at_least("emulator, method round trips", "≥ 1.2 × mosquitto", (trips, EMULATOR), (trips, "mosquitto"), 1.2)
    them.at_most("emulator, CPU for each method", "≤ 1.1 × mosquitto", (cost, EMULATOR), (cost, "mosquitto"), 1.1)
    return "\n".join(them.lines)
