"""Times `iotdm-ctl twin show` beside a Python script on azure-iot-hub that does
the same, in turns against one emulator, each as a whole process; and the CPU
that `iotdm-ctl --version` takes. Build first:

    cargo build --release -p iotdm-ctl && cargo build -p iotdm-emulator
    tests/sdk/run --collect-only -q     # makes the directory with the SDK
    target/sdk-venv/bin/python tests/sdk/compare.py
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from programs import BUILT, Emulator

RUNS = 10

SCRIPT = """
import os, sys
from azure.iot.hub import IoTHubRegistryManager
registry = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
print(registry.get_twin(sys.argv[1]))
"""


def seconds(command, environment):
    """Of the whole process, start to end."""
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def cpu_seconds(command):
    """Of the processor, as the system counts it for a child."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def say(what, times):
    low, middle, high = (1000 * f(times) for f in (min, statistics.median, max))
    print(f"{what:34} min {low:8.2f} ms  median {middle:8.2f} ms  max {high:8.2f} ms")


def main():
    ctl = str(BUILT.with_name("release") / "iotdm-ctl")
    with tempfile.TemporaryDirectory() as directory:
        emulator = Emulator(Path(directory) / "hub", "--mqtt-port", "0", "--https-port", "0", "--device", "gw1")
        ca = str(emulator.ca_file)
        environment = os.environ | {
            "IOTHUB_CONNECTION_STRING": emulator.service_string,
            "IOTDM_CA_FILE": ca,
            "REQUESTS_CA_BUNDLE": ca,
        }
        commands = {
            "iotdm-ctl twin show": [ctl, "twin", "show", "gw1"],
            "azure-iot-hub, get_twin": [sys.executable, "-c", SCRIPT, "gw1"],
        }
        times = {what: [] for what in commands}
        for turn in range(RUNS + 1):
            for what, command in commands.items():
                taken = seconds(command, environment)
                # The first turn is for the caches of the system.
                if turn:
                    times[what].append(taken)
        emulator.stop()
    for what, taken in times.items():
        say(what, taken)
    ours, theirs = (statistics.median(taken) for taken in times.values())
    print(f"{theirs / ours:.1f} times as fast, by the medians of {RUNS} runs in turns")
    say("iotdm-ctl --version, CPU", [cpu_seconds([ctl, "--version"]) for _ in range(RUNS)])


if __name__ == "__main__":
    main()
