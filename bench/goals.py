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
    them.at_most("daemon, private memory, each by itself", "≤ mosquitto_sub + 2 MiB", (alone, AGENTD), (alone, SUB), plus=2048)
    them.at_most("daemon, private memory, where others have OpenSSL in memory, too", "≤ mosquitto_sub + 2 MiB",
                 (beside, AGENTD), (beside, SUB), plus=2048)
    them.at_most("daemon, private memory, each by itself", "≤ 1/8 of the Python client", (alone, AGENTD), (alone, DEVICE), 1 / 8)
    for what in table.values:
        if what.startswith("memory: private, after ") and "first" not in what:
            first = what.replace("after", "before") if "methods" in what else "memory: private, after the first reconnect, KiB"
            after = what.removeprefix("memory: private, ").removesuffix(", KiB")
            them.at_most(f"daemon, memory {after}", "no growth (within 128 KiB)", (what, AGENTD), (first, AGENTD), plus=128)
    # Ten signs of life for the watchdog and three keep-alives, each a timer that
    # tokio's wheel takes in up to three steps; and three answers.
    them.at_most("daemon, wake-ups in 10 idle minutes", "≤ 42: for watchdog and keep-alive alone",
                 ("idle for 10 minutes: context switches", AGENTD), 42)
    for whom in table.values.get("size: stripped binary, KiB", {}):
        them.at_most(f"{whom}, stripped", "≤ 4 MiB", ("size: stripped binary, KiB", whom), 4096)
    for whom in table.values.get("size: package, KiB", {}):
        them.at_most(f"{whom}, package", "≤ 1.5 MiB", ("size: package, KiB", whom), 1536)
    started = "start: exec to method answered, ms"
    them.at_most("daemon, exec to READY=1", "≤ 10 ms", ("start: exec to READY=1, ms", AGENTD), 10)
    them.at_most("daemon, exec to methods answered", "≤ 1.2 × mosquitto_sub subscribed",
                 (started, AGENTD), (started, f"{SUB}, exec to subscribed"), 1.2)
    for percentile in ("median", "99th percentile"):
        trip = f"method: round trip, {percentile}, ms"
        them.at_most(f"daemon, method, {percentile}", "≤ 1.1 × the echo client", (trip, AGENTD), (trip, ECHO), 1.1)
    them.at_most("daemon, reply to logind called", "≤ 30 ms", ("reboot: reply at the operator to logind called, ms", AGENTD), 30)
    trip = them.median("network: round trip, ms", SUB)
    them.at_most("daemon, network up to rebootTime acknowledged", "≤ mosquitto_sub connected + 2 round trips",
                 ("network up to rebootTime acknowledged, ms", AGENTD), ("network: exec to connected, ms", SUB), plus=2 * (trip or 0))
    for task in ("twin show", "invoke", "--version"):
        for measure in ("ms", "peak of memory, KiB"):
            what = f"ctl: {task}, {measure}"
            unit = "time" if measure == "ms" else "memory"
            them.at_most(f"ctl, {task}, {unit}", "≤ 1.5 × curl", (what, CTL), (what, "curl"), 1.5)
            them.at_most(f"ctl, {task}, {unit}", "≤ 1/10 of the Python script", (what, CTL), (what, OPERATOR), 1 / 10)
    them.at_most("ctl, 10,000 devices, memory", "≤ 64 MiB", (f"{FLEET}: peak of memory, KiB", CTL), 64 * 1024)
    per, rate = f"{FLEET}: CPU for each device, ms", f"{FLEET}: devices a second"
    them.at_most("ctl, 10,000 devices, CPU", "less than the emulator", (per, CTL), (per, "the emulator meanwhile"))
    them.at_least("ctl, 10,000 devices, a second", "≥ 0.9 × calls and twins alone", (rate, CTL), (rate, "calls and twins alone"), 0.9)
    them.at_most("emulator, exec to ready", "≤ 100 ms", ("emulator: exec to ready, ms", f"{EMULATOR}, new directory"), 100)
    them.at_most("emulator, memory for each connection", "≤ 40 KiB",
                 (f"{HUB}: memory for each connection, KiB", EMULATOR), 40)
    trips = f"{HUB}: method round trips a second"
    them.at_least("emulator, method round trips", "≥ mosquitto", (trips, EMULATOR), (trips, "mosquitto"))
    return "\n".join(them.lines)
