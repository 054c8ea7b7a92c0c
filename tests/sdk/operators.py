"""What an operator does with the provisioning service, by REST: there is no
official Python client that takes another host's CA."""

import base64
import hashlib
import hmac
import time
import urllib.parse

import requests


def enrol(hub, path, body):
    """PUTs an enrolment as `provisioningserviceowner`."""
    text = (hub.data / "policies" / "provisioningserviceowner").read_text().strip()
    parts = dict(part.split("=", 1) for part in text.split(";"))
    resource = urllib.parse.quote(parts["HostName"], safe="")
    expiry = int(time.time()) + 600
    mac = hmac.new(base64.b64decode(parts["SharedAccessKey"]), f"{resource}\n{expiry}".encode(), hashlib.sha256)
    signature = urllib.parse.quote(base64.b64encode(mac.digest()).decode(), safe="")
    token = f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={parts['SharedAccessKeyName']}"
    url = f"https://{parts['HostName']}{path}?api-version=2021-10-01"
    answer = requests.put(url, json=body, headers={"Authorization": token}, verify=str(hub.ca_file), timeout=30)
    answer.raise_for_status()
    return answer.json()


def enrol_group(hub, name, key):
    attestation = {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}
    return enrol(hub, f"/enrollmentGroups/{name}", {"enrollmentGroupId": name, "attestation": attestation})
