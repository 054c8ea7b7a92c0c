"""A device program with the official SDK, shaped like Microsoft's tutorial
"Get started with device management": `rebootDevice` is answered with 200, a
reboot is pretended, and `rebootTime` is reported afterwards.

Arguments: a file with the device's connection string, a file with the CA.
"""

import datetime
import sys
import time

from azure.iot.device import IoTHubDeviceClient, MethodResponse


def main(connection_string_file, ca_file):
    with open(connection_string_file) as file:
        connection_string = file.read().strip()
    with open(ca_file) as file:
        ca = file.read()
    client = IoTHubDeviceClient.create_from_connection_string(connection_string, server_verification_cert=ca)

    def handle(request):
        if request.name != "rebootDevice":
            refusal = MethodResponse.create_from_method_request(request, 404, {"error": "unknown method"})
            client.send_method_response(refusal)
            return
        print("received rebootDevice:", request.payload, flush=True)
        reply = MethodResponse.create_from_method_request(request, 200, {"Response": "Reboot started"})
        client.send_method_response(reply)
        time.sleep(1)  # the device is down
        now = datetime.datetime.now(datetime.UTC).isoformat()
        client.patch_twin_reported_properties({"rebootTime": now})
        print("reported rebootTime:", now, flush=True)

    client.on_method_request_received = handle
    client.connect()
    print("waiting for commands", flush=True)
    sys.stdin.read()
    client.shutdown()


main(*sys.argv[1:])
