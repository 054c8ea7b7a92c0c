"""The questions: what emulator/README.md calls unverified, and some that recordings have settled already, as a check of
the witness itself. Each gets a hub and says in a few words what that hub answers."""

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from mqtt import PUBACK, PUBLISH, Device
from rest import Answer, Hub

# How long a job may take to end, or a configuration to be applied, in seconds.
JOB_PATIENCE, CONFIGURATION_PATIENCE = 180, 900


@dataclass(frozen=True)
class Question:
    name: str
    text: str
    ask: Callable[[Hub], str]
    slow: bool = False


QUESTIONS: list[Question] = []

# What this way cannot ask, so that nobody looks for it in the table.
NOT_ASKED = {
    "the value of mqtt-retain": "telemetry is read by AMQP alone",
    "everything about provisioning": "it is another service, with a connection string of its own",
}


def question(text: str, slow: bool = False):
    def add(function: Callable[[Hub], str]):
        QUESTIONS.append(Question(function.__name__.replace("_", "-"), text, function, slow))
        return function

    return add


def key_of(identity: dict) -> bytes:
    return base64.b64decode(identity["authentication"]["symmetricKey"]["primaryKey"])


def connected(hub: Hub, identity: dict, **options) -> Device:
    device = Device(hub, identity["deviceId"], key_of(identity), **options)
    if device.code != 0:
        raise RuntimeError(f"the device is refused with CONNACK {device.code}")
    return device


def said(answer: Answer) -> str:
    """A refusal in a line, or that there is none."""
    if answer.status < 300:
        return str(answer.status)
    name, message = answer.error()
    return f"{answer.status} {name}: {message[:90]}" if message else f"{answer.status} {name}"


def status_of(answer: Answer) -> str:
    return str(answer.status) if answer.status < 300 else f"{answer.status} {answer.error()[0]}"


def call(hub: Hub, identity: dict, reply: Callable[[Device, str], None], **fields) -> Answer:
    """Calls a method of a device that answers with `reply`."""
    answers: list[Answer] = []
    path = f"/twins/{identity['deviceId']}/methods"
    body = {"methodName": "m", "responseTimeoutInSeconds": 15, "connectTimeoutInSeconds": 0, **fields}
    with connected(hub, identity) as device:
        device.subscribe("$iothub/methods/POST/#")
        caller = threading.Thread(target=lambda: answers.append(hub.ask("POST", path, body)))
        caller.start()
        asked = device.wait_for(PUBLISH, "$iothub/methods/POST/")
        if asked:
            reply(device, asked.topic.rpartition("$rid=")[2])
        caller.join()
    return answers[0]


# Connections


@question("CONNACK for a disabled device")
def connack_disabled(hub: Hub) -> str:
    identity = hub.device("off", status="disabled")
    with Device(hub, identity["deviceId"], key_of(identity)) as device:
        return f"CONNACK {device.code}"


@question("CONNACK for an unknown device")
def connack_unknown(hub: Hub) -> str:
    with Device(hub, f"{hub.prefix}-unknown", b"k" * 32) as device:
        return f"CONNACK {device.code}"


@question("CONNACK for a wrong key (recorded: 5)")
def connack_wrong_key(hub: Hub) -> str:
    identity = hub.device("key")
    with Device(hub, identity["deviceId"], b"k" * 32) as device:
        return f"CONNACK {device.code}"


@question("a publish to an illegal topic")
def illegal_topic(hub: Hub) -> str:
    with connected(hub, hub.device("topic")) as device:
        device.publish("witness/elsewhere", b"x", qos=1)
        try:
            answer = device.wait_for(PUBACK)
        except TimeoutError:
            return "neither an answer nor an end"
        return "PUBACK" if answer else "the connection ends"


@question("a Will for another topic than telemetry")
def illegal_will(hub: Hub) -> str:
    identity = hub.device("will")
    with Device(hub, identity["deviceId"], key_of(identity), will=("witness/elsewhere", b"x")) as device:
        return f"CONNACK {device.code}"


@question("how long a connection outlives its token")
def token_expiry(hub: Hub) -> str:
    with connected(hub, hub.device("token"), seconds=8) as device:
        end = time.monotonic() + 8
        try:
            while device.read(end + 60 - time.monotonic()):
                pass
        except (TimeoutError, ValueError):
            return "more than 60 s"
        late = time.monotonic() - end
        return "no grace" if late < 5 else f"some {round(late, -1):.0f} s"


# Twins


@question("a report by which the reported properties grow beyond 32 KB")
def report_too_large(hub: Hub) -> str:
    with connected(hub, hub.device("large")) as device:
        device.subscribe("$iothub/twin/res/#")
        half = {str(number): "x" * 1000 for number in range(18)}
        first = device.report({"a": half})
        return f"{first}, then {device.report({'b': half})}"


@question("# in keys of tags and properties")
def hash_in_keys(hub: Hub) -> str:
    path = f"/twins/{hub.device('hash')['deviceId']}"
    tags = hub.ask("PATCH", path, {"tags": {"a#b": 1}})
    desired = hub.ask("PATCH", path, {"properties": {"desired": {"a#b": 1}}})
    return f"tags {status_of(tags)}, desired {status_of(desired)}"


@question("tags of a twin whose last tag was removed")
def emptied_tags(hub: Hub) -> str:
    path = f"/twins/{hub.device('tags')['deviceId']}"
    hub.ask("PATCH", path, {"tags": {"a": 1}})
    twin = hub.ask("PATCH", path, {"tags": {"a": None}}).body
    return json.dumps(twin["tags"]) if "tags" in twin else "no tags"


@question("a stale etag of a twin")
def stale_etag(hub: Hub) -> str:
    path = f"/twins/{hub.device('etag')['deviceId']}"
    return said(hub.ask("PATCH", path, {"tags": {"a": 1}}, {"If-Match": '"AAAAAAAAAH8="'}))


@question("version and etag of a new twin (recorded: 2, AAAAAAAAAAE=)")
def new_twin(hub: Hub) -> str:
    twin = hub.ask("GET", f"/twins/{hub.device('new')['deviceId']}").body
    return f"{twin['version']}, {twin['etag']}"


# Methods


@question("a reply that is not JSON")
def reply_no_json(hub: Hub) -> str:
    answer = call(hub, hub.device("reply"), lambda device, rid: device.publish(f"$iothub/methods/res/200/?$rid={rid}", b"{no"))
    return f"200, payload {json.dumps(answer.body.get('payload'))}" if answer.status == 200 else said(answer)


@question("the status in a reply: -1, 1000, 99999999999")
def reply_status(hub: Hub) -> str:
    identity, results = hub.device("status"), []
    for status in ("-1", "1000", "99999999999"):
        def reply(device: Device, rid: str, status: str = status) -> None:
            device.publish(f"$iothub/methods/res/{status}/?$rid={rid}", b"{}")

        answer = call(hub, identity, reply, responseTimeoutInSeconds=6)
        results.append(str(answer.body["status"]) if answer.status == 200 else status_of(answer))
    return ", ".join(results)


@question("a call whose device connects anew")
def replaced_connection(hub: Hub) -> str:
    identity = hub.device("twice")

    def reply(device: Device, rid: str) -> None:
        connected(hub, identity).close()

    return status_of(call(hub, identity, reply))


@question("a connect timeout longer than the response timeout")
def connect_longer(hub: Hub) -> str:
    path = f"/twins/{hub.device('longer')['deviceId']}/methods"
    body = {"methodName": "m", "responseTimeoutInSeconds": 5, "connectTimeoutInSeconds": 6}
    return status_of(hub.ask("POST", path, body))


@question("a call of a device that is not connected (recorded: 404103)")
def offline(hub: Hub) -> str:
    path = f"/twins/{hub.device('offline')['deviceId']}/methods"
    return said(hub.ask("POST", path, {"methodName": "m", "responseTimeoutInSeconds": 5}))


# Identities


@question("DELETE of an identity, of a configuration without If-Match")
def delete_without_etag(hub: Hub) -> str:
    device = f"/devices/{hub.device('delete')['deviceId']}"
    configuration = f"/configurations/{hub.prefix}-delete"
    hub.make(configuration, a_configuration(hub, "delete"))
    return ", ".join(status_of(hub.ask("DELETE", path, kind="registry")) for path in (device, configuration))


@question("a PUT that names neither status nor reason nor capabilities")
def put_keeps(hub: Hub) -> str:
    identity = hub.device("keep", status="disabled", statusReason="witness", capabilities={"iotEdge": True})
    id_ = identity["deviceId"]
    short = {"deviceId": id_, "authentication": identity["authentication"]}
    answer = hub.ask("PUT", f"/devices/{id_}", short, {"If-Match": "*"}, "registry")
    if answer.status != 200:
        return said(answer)
    now = answer.body
    return f"{now['status']}, {json.dumps(now.get('statusReason'))}, iotEdge {json.dumps(now['capabilities']['iotEdge'])}"


@question("a bulk update without authentication")
def bulk_keys(hub: Hub) -> str:
    before = hub.device("bulk")
    body = [{"id": before["deviceId"], "importMode": "update", "status": "enabled"}]
    answer = hub.ask("POST", "/devices", body, kind="registry")
    if answer.status != 200:
        return said(answer)
    after = hub.ask("GET", f"/devices/{before['deviceId']}", kind="registry").body
    return "the keys stay" if key_of(after) == key_of(before) else "new keys"


@question("authentication of type none for a device")
def type_none(hub: Hub) -> str:
    id_ = f"{hub.prefix}-none"
    return status_of(hub.make(f"/devices/{id_}", {"deviceId": id_, "authentication": {"type": "none"}}))


@question("a PUT with one key alone")
def one_key(hub: Hub) -> str:
    id_ = f"{hub.prefix}-one"
    keys = {"primaryKey": base64.b64encode(b"k" * 32).decode()}
    return status_of(hub.make(f"/devices/{id_}", {"deviceId": id_, "authentication": {"type": "sas", "symmetricKey": keys}}))


@question("keys of a new IoT Edge device's $edgeAgent")
def edge_keys(hub: Hub) -> str:
    id_ = hub.device("edge", capabilities={"iotEdge": True})["deviceId"]
    answer = hub.ask("GET", f"/devices/{id_}/modules/$edgeAgent", kind="registry")
    if answer.status != 200:
        return said(answer)
    keys = answer.body["authentication"].get("symmetricKey") or {}
    return "made at once" if keys.get("primaryKey") else f"none, type {answer.body['authentication'].get('type')}"


@question("the shape of a refusal about a module that is there")
def module_conflict(hub: Hub) -> str:
    id_ = hub.device("module")["deviceId"]
    path, body = f"/devices/{id_}/modules/m", {"deviceId": id_, "moduleId": "m"}
    hub.ask("PUT", path, body, kind="registry")
    answer = hub.ask("PUT", path, body, kind="registry")
    return f"{answer.status} {answer.error()[0]}, {'nested' if 'Message' in answer.body else 'flat'}"


@question("a module that is not there")
def module_missing(hub: Hub) -> str:
    id_ = hub.device("nomodule")["deviceId"]
    answer = hub.ask("GET", f"/devices/{id_}/modules/m", kind="registry")
    return f"{answer.status} {answer.error()[0]}, {'classic' if 'Message' in answer.body else 'flat'}"


# Queries


@question("documents without the path that GROUP BY names")
def group_without(hub: Hub) -> str:
    for name, group in (("g1", {"tags": {"witness": "x"}}), ("g2", {})):
        hub.ask("PATCH", f"/twins/{hub.device(name)['deviceId']}", group)
    wanted = ", ".join(f"'{hub.prefix}-{name}'" for name in ("g1", "g2"))
    sql = f"SELECT tags.witness AS w, COUNT() AS n FROM devices WHERE deviceId IN [{wanted}] GROUP BY tags.witness"
    # The service's index is some seconds behind.
    return settled(hub, lambda: hub.ask("POST", "/devices/query", {"query": sql}, kind="query"), lambda rows: sum(
        row.get("n", 0) for row in rows) == 2 or None)


@question("x-ms-item-type of whole twins, of chosen fields")
def item_type(hub: Hub) -> str:
    id_ = hub.device("item")["deviceId"]
    types = []
    for what in ("*", "deviceId"):
        answer = hub.ask("POST", "/devices/query", {"query": f"SELECT {what} FROM devices WHERE deviceId = '{id_}'"}, kind="query")
        types.append(answer.headers.get("x-ms-item-type", "none"))
    return ", ".join(types)


@question("a query that is not understood (recorded: ArgumentInvalid;BadRequest)")
def bad_query(hub: Hub) -> str:
    return said(hub.ask("POST", "/devices/query", {"query": "SELECT FROM WHERE"}, kind="query"))


def settled(hub: Hub, ask: Callable[[], Answer], is_it: Callable[[list], object]) -> str:
    """The rows of a query once they are as the documents are, or whatever they are after a while."""
    for _ in range(5 if hub.paced else 1):
        answer = ask()
        if answer.status != 200 or is_it(answer.body):
            break
    if answer.status != 200:
        return said(answer)
    return json.dumps(sorted(answer.body, key=json.dumps), sort_keys=True)


# Jobs


def a_job(hub: Hub, name: str, **fields) -> tuple[str, dict]:
    id_ = f"{hub.prefix}-{name}"
    where = f"deviceId = '{hub.prefix}-{name}'"
    twin = {"etag": "*", "tags": {"witness": name}}
    return id_, {"jobId": id_, "type": "scheduleUpdateTwin", "updateTwin": twin, "queryCondition": where,
                 "startTime": "", "maxExecutionTimeInSeconds": 60, **fields}


def ended(hub: Hub, id_: str) -> dict:
    end = time.monotonic() + JOB_PATIENCE
    while (job := hub.ask("GET", f"/jobs/v2/{id_}", kind="job").body)["status"] not in ("completed", "failed", "cancelled"):
        if time.monotonic() > end:
            break
        time.sleep(3 if hub.paced else 0.2)
    return job


@question("job ids with a space, a slash, a dot, 70 characters")
def job_ids(hub: Hub) -> str:
    results = []
    for odd in ("a%20b", "a%2Fb", "a.b", "a" * 70):
        id_, body = a_job(hub, odd, startTime="2030-01-01T00:00:00Z")
        answer = hub.make(f"/jobs/v2/{id_}", {**body, "jobId": id_.replace("%20", " ").replace("%2F", "/")}, "job")
        results.append(status_of(answer))
        hub.ask("POST", f"/jobs/v2/{id_}/cancel", kind="job")
    return ", ".join(results)


@question("startTime of a job ten years ahead")
def job_far(hub: Hub) -> str:
    id_, body = a_job(hub, "far", startTime=f"{time.gmtime().tm_year + 10}-01-01T00:00:00Z")
    answer = hub.make(f"/jobs/v2/{id_}", body, "job")
    hub.ask("POST", f"/jobs/v2/{id_}/cancel", kind="job")
    return status_of(answer)


@question("a job's end, its device's part, and cancelling it then")
def job_states(hub: Hub) -> str:
    device = hub.device("job")["deviceId"]
    id_, body = a_job(hub, "job")
    answer = hub.make(f"/jobs/v2/{id_}", body, "job")
    if answer.status >= 300:
        return said(answer)
    job = ended(hub, id_)
    sql = f"SELECT * FROM devices.jobs WHERE devices.jobs.deviceId = '{device}'"
    rows = hub.ask("POST", "/devices/query", {"query": sql}, kind="query")
    part = rows.body[0].get("status", "?") if rows.status == 200 and rows.body else "no row"
    return f"{job['status']}; {part}; {said(hub.ask('POST', f'/jobs/v2/{id_}/cancel', kind='job'))}"


@question("a job's call of a device that is not connected: error.code in devices.jobs")
def job_error(hub: Hub) -> str:
    device = hub.device("joff")["deviceId"]
    id_, body = a_job(hub, "joff", type="scheduleDeviceMethod",
                      cloudToDeviceMethod={"methodName": "m", "responseTimeoutInSeconds": 5})
    body.pop("updateTwin")
    answer = hub.make(f"/jobs/v2/{id_}", body, "job")
    if answer.status >= 300:
        return said(answer)
    job = ended(hub, id_)
    sql = f"SELECT * FROM devices.jobs WHERE devices.jobs.deviceId = '{device}'"
    rows = hub.ask("POST", "/devices/query", {"query": sql}, kind="query")
    row = rows.body[0] if rows.status == 200 and rows.body else {}
    return f"{job['status']}; {row.get('status', 'no row')}; {row.get('error', {}).get('code')}"


@question("the body and x-ms-item-type of /jobs/v2/query")
def job_list(hub: Hub) -> str:
    answer = hub.ask("GET", "/jobs/v2/query?jobType=scheduleUpdateTwin&jobStatus=completed", kind="query")
    shape = "an array" if isinstance(answer.body, list) else f"an object with {', '.join(answer.body)}"
    return f"{shape}, {answer.headers.get('x-ms-item-type', 'none')}"


@question("a job that is not there")
def job_missing(hub: Hub) -> str:
    answer = hub.ask("GET", f"/jobs/v2/{hub.prefix}-none", kind="job")
    return f"200, status {answer.body.get('status')}" if answer.status == 200 else said(answer)


# Configurations


def a_configuration(hub: Hub, name: str, priority: int = 1, **content) -> dict:
    return {"id": f"{hub.prefix}-{name}", "schemaVersion": "1.0", "priority": priority, "labels": {},
            "targetCondition": f"tags.witness = '{hub.prefix}'",
            "content": {"deviceContent": content or {"properties.desired.witness": {"a": 1}}}}


@question("If-Match of a configuration: an etag without quotes; ETag when it is read")
def configuration_etag(hub: Hub) -> str:
    path, body = f"/configurations/{hub.prefix}-etag", a_configuration(hub, "etag")
    made = hub.make(path, body)
    if made.status != 200:
        return said(made)
    read = hub.ask("GET", path)
    changed = hub.make(path, {**body, "priority": 2}, headers={"If-Match": made.body["etag"]})
    return f"{status_of(changed)}; {'an ETag' if 'etag' in read.headers else 'no ETag'}"


@question("two configurations of which one sets a part of what the other sets", slow=True)
def configuration_conflict(hub: Hub) -> str:
    device = hub.device("conf")["deviceId"]
    hub.ask("PATCH", f"/twins/{device}", {"tags": {"witness": hub.prefix}})
    one = {"properties.desired.witness": {"a": 1, "b": 1}}
    other = {"properties.desired.witness.a": 2}
    hub.make(f"/configurations/{hub.prefix}-one", a_configuration(hub, "one", 2, **one))
    hub.make(f"/configurations/{hub.prefix}-other", a_configuration(hub, "other", 1, **other))
    end = time.monotonic() + CONFIGURATION_PATIENCE
    twin: dict = {}
    while time.monotonic() < end:
        twin = hub.ask("GET", f"/twins/{device}").body
        if len(twin.get("configurations", {})) == 2:
            break
        time.sleep(20 if hub.paced else 0.2)
    states = [f"{id_.rpartition('-')[2]} {one['status']}" for id_, one in sorted(twin.get("configurations", {}).items())]
    return f"{json.dumps(twin['properties']['desired'].get('witness'))}; {', '.join(states) or 'none'}"
