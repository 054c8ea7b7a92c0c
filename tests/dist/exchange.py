"""The official SDKs on both sides of a hub, an operator's and a device's. Argument: a copy of the hub's data."""

import base64
import os
import sys
from pathlib import Path

from azure.iot.device import IoTHubDeviceClient, MethodResponse
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod

DEVICE = "made-by-the-sdk"
KEY = base64.b64encode(bytes(32)).decode()


def main(data: Path) -> None:
    ca = data / "ca.pem"
    os.environ["REQUESTS_CA_BUNDLE"] = str(ca)
    string = (data / "service-connection-string").read_text().strip()
    operator = IoTHubRegistryManager.from_connection_string(string)
    operator.create_device_with_sas(DEVICE, KEY, KEY, "enabled")
    # The SDK for devices takes no port but the standard one.
    host = string.partition("HostName=")[2].partition(";")[0].partition(":")[0]
    client = IoTHubDeviceClient.create_from_connection_string(
        f"HostName={host};DeviceId={DEVICE};SharedAccessKey={KEY}", server_verification_cert=ca.read_text())

    def answer(request) -> None:
        client.send_method_response(MethodResponse.create_from_method_request(request, 200, {"rebooting": request.payload["reason"]}))

    client.on_method_request_received = answer
    client.connect()
    client.patch_twin_reported_properties({"image": True})
    call = CloudToDeviceMethod(method_name="rebootDevice", payload={"reason": "update"}, response_timeout_in_seconds=30,
                               connect_timeout_in_seconds=30)
    reply = operator.invoke_device_method(DEVICE, call)
    assert reply.status == 200 and reply.payload == {"rebooting": "update"}, reply
    assert operator.get_twin(DEVICE).properties.reported["image"] is True
    client.shutdown()
    print("exchanged")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
