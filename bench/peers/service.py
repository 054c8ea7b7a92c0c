"""An operator's script on azure-iot-hub. Arguments: "twin" or "invoke", the device."""

import os
import sys

string = os.environ["IOTHUB_CONNECTION_STRING"]
what, device = sys.argv[1:]
# Only what the task needs is imported, as in a script that does one thing.
from azure.iot.hub import IoTHubRegistryManager  # noqa: E402

registry = IoTHubRegistryManager.from_connection_string(string)
if what == "twin":
    print(registry.get_twin(device))
else:
    from azure.iot.hub.models import CloudToDeviceMethod

    call = CloudToDeviceMethod(method_name="getRebootStatus", payload={}, response_timeout_in_seconds=60)
    print(registry.invoke_device_method(device, call))
