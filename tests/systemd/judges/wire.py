"""What a device and its hub said to each other, as the emulator logs it."""

import copy
import json
import re
import threading
import time
from dataclasses import dataclass

METHOD_CALL = "$iothub/methods/POST/"
METHOD_REPLY = "$iothub/methods/res/"
DESIRED_PATCH = "$iothub/twin/PATCH/properties/desired/"
REPORTED_PATCH = "$iothub/twin/PATCH/properties/reported/"
TWIN_REPLY = "$iothub/twin/res/"


@dataclass(frozen=True)
class Message:
    at: float
    to_device: bool
    topic: str
    payload: str

    @property
    def rid(self) -> str:
        return re.search(r"\$rid=([^&]*)", self.topic)[1]


@dataclass(frozen=True)
class State:
    """The device's reported properties once a patch was merged into them."""

    at: float
    rid: str
    reported: dict


class Wire:
    """Listens to a hub, see pyharness's `Hub(verbose=True, listener=…)`, for one device."""

    def __init__(self, device: str) -> None:
        self.messages: list[Message] = []
        self.states: list[State] = []
        # When each connection began, and how many are open.
        self.connects: list[float] = []
        self.open = 0
        self._device = device
        self._changed = threading.Condition()
        self._failure: str | None = None

    def wait(self, condition, timeout: float, what: str) -> None:
        """Waits until `condition` holds of what was said so far."""
        deadline = time.monotonic() + timeout
        with self._changed:
            # Looks every 50 ms as well, as a condition may regard other things than what was said.
            while not condition():
                assert self._failure is None, self._failure
                left = deadline - time.monotonic()
                assert left > 0, f"no {what} in {timeout} s"
                self._changed.wait(min(left, 0.05))

    def acknowledged(self, state: State) -> bool:
        """Whether the hub has told the device that the hub has this state."""
        return any(said.to_device and said.topic.startswith(f"{TWIN_REPLY}204/") and said.rid == state.rid
                   and said.at >= state.at for said in self.messages)

    def unanswered(self, since: float, until: float) -> bool:
        """Whether the newest request to the twin in that time was not answered in it.

        Without an answer a device sends no further one.
        """
        said = [message for message in self.messages if since <= message.at < until]
        asked = [message for message in said if not message.to_device and message.topic.startswith("$iothub/twin/")]
        answers = {message.rid for message in said if message.to_device and message.topic.startswith(TWIN_REPLY)}
        return bool(asked) and asked[-1].rid not in answers

    def hear(self, line: str) -> None:
        """Takes a line of the emulator's log."""
        with self._changed:
            if f"device={self._device} " not in line:
                return
            if said := re.search(r'(device -> hub|hub -> device) device=\S+ topic="([^"]*)" payload=(.*)', line):
                self._say(Message(time.monotonic(), said[1] == "hub -> device", said[2], said[3]))
            elif "device connected" in line:
                self.connects.append(time.monotonic())
                self.open += 1
            elif "device disconnected" in line:
                self.open -= 1
            self._changed.notify_all()

    def _say(self, message: Message) -> None:
        self.messages.append(message)
        if message.to_device and message.topic.startswith(f"{TWIN_REPLY}4"):
            self._failure = f"the hub refused: {message.topic} {message.payload}"
        if not message.to_device and message.topic.startswith(REPORTED_PATCH):
            reported = copy.deepcopy(self.states[-1].reported) if self.states else {}
            merge(reported, json.loads(message.payload))
            self.states.append(State(message.at, message.rid, reported))


def merge(properties: dict, patch: dict) -> None:
    """Merges a patch as IoT Hub does it: objects merge, null deletes, all else replaces."""
    for key, value in patch.items():
        if value is None:
            properties.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(properties.get(key), dict):
                properties[key] = {}
            merge(properties[key], value)
        else:
            properties[key] = value
