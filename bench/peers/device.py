"""A device on azure-iot-device: methods and twin subscribed, each call answered.

Arguments: a file with the connection string, a file with the CA.
"""

import sys
import threading

from azure.iot.device import IoTHubDeviceClient, MethodResponse

string, ca = (open(file).read() for file in sys.argv[1:])
client = IoTHubDeviceClient.create_from_connection_string(string.strip(), server_verification_cert=ca)


def answer(request):
    client.send_method_response(MethodResponse.create_from_method_request(request, 200, {}))


client.on_method_request_received = answer
client.on_twin_desired_properties_patch_received = lambda patch: None
client.connect()
client.get_twin()
print("ready", flush=True)
threading.Event().wait()
