"""What happened to a machine under trial, seen from outside: how each of its lives ended, what the device and its hub
said to each other, and what logind wrote into the journal. What the daemon keeps on its disk is not asked."""

import json
import math
from dataclasses import dataclass, field

from machines import power
from machines.power import Life

from judges.wire import METHOD_CALL, METHOD_REPLY, Message, State, Wire

# Keys of `reboot` that change while it goes on.
PROGRESS = ("waitingFor", "waitingForCount")


@dataclass
class History:
    lives: list[Life]
    wire: Wire
    # The lives in which somebody else asked for a reboot.
    local: set[int] = field(default_factory=set)
    # The lives after whose end the daemon's memory of them was destroyed.
    harmed: set[int] = field(default_factory=set)
    # In which lives logind said that it reboots the machine, and when.
    logind: dict[int, float] = field(default_factory=dict)

    def life_at(self, at: float) -> int:
        return max((number for number, life in enumerate(self.lives) if life.began <= at), default=0)

    def reboot_before(self, at: float) -> dict:
        """`reboot` as it stood in the twin then."""
        states = [state for state in self.wire.states if state.at < at]
        return states[-1].reported.get("reboot", {}) if states else {}

    def forgiven(self, identity: str, since: float) -> bool:
        """Whether the device's memory was destroyed, and the twin, its second one, did not know of the request then."""
        return any(self.reboot_before(self.lives[number + 1].began).get("id") != identity
                   for number in self.harmed if number >= self.life_at(since))

    def reports(self, identity: str) -> list[State]:
        """The states of the twin that tell of this request."""
        return [state for state in self.wire.states if state.reported.get("reboot", {}).get("id") == identity]

    def calls(self, method: str, identity: str) -> list[Message]:
        called = (said for said in self.wire.messages if said.to_device and said.topic.startswith(f"{METHOD_CALL}{method}/"))
        return [call for call in called if body(call).get("id") == identity]

    def grants(self, identity: str) -> list[tuple[float, dict]]:
        """When a reply of 200 said what to a request of this id."""
        return [(said.at, body(said)) for said in self._granted(identity) if body(said).get("status") != "cancelled"]

    def cancelled_at(self, identity: str) -> float:
        """When a reply first said that the request is cancelled."""
        said = (said.at for said in self._granted(identity) if body(said).get("status") == "cancelled")
        return next(said, math.inf)

    def _granted(self, identity: str) -> list[Message]:
        replies = (said for said in self.wire.messages if not said.to_device and said.topic.startswith(f"{METHOD_REPLY}200/"))
        return [reply for reply in replies if body(reply).get("id") == identity]

    def begun(self, since: float) -> list[tuple[int, float, str]]:
        """Each life since then in which a reboot of the device's own was begun, when that was seen, and for which id,
        which only the announcement has."""
        found, told = [], None
        for state in self.wire.states:
            reboot = {key: value for key, value in state.reported.get("reboot", {}).items() if key not in PROGRESS}
            if reboot.get("status") == "rebooting" and reboot != told and state.at >= since:
                found.append((self.life_at(state.at), state.at, reboot["id"]))
            told = reboot
        for number, life in enumerate(self.lives):
            if number >= self.life_at(since) and number not in self.local:
                if life.end == power.REBOOT:
                    found.append((number, life.ended, ""))
                if number in self.logind:
                    found.append((number, self.logind[number], ""))
        return found


def body(message: Message) -> dict:
    """A message's payload, if it is an object."""
    parsed = json.loads(message.payload) if message.payload else None
    return parsed if isinstance(parsed, dict) else {}
