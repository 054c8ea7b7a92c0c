"""The official device SDK through what happens to a device in time: new
tokens, certificates, provisioning, modules, messages."""

import base64
import hashlib
import hmac
import subprocess
import threading
import time

import pytest
from azure.iot.device import (
    X509,
    IoTHubDeviceClient,
    IoTHubModuleClient,
    MethodResponse,
    ProvisioningDeviceClient,
)
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties
from operators import enrol, enrol_group
from pyharness.process import PATIENCE
from standard_hub import ADDRESS, standard_hub


@pytest.fixture(params=[False, True], ids=["mqtt", "websockets"])
def websockets(request):
    return request.param


@pytest.fixture
def hub(tmp_path, request):
    # The SDK knows no other port for WebSockets.
    needs_443 = "websockets" in request.fixturenames and request.getfixturevalue("websockets")
    with standard_hub(tmp_path / "hub", https_port=443 if needs_443 else 0) as hub:
        yield hub


def connected(hub, kind=IoTHubDeviceClient, file="gw1", **options):
    return kind.create_from_connection_string(
        hub.device_file(file).read_text().strip(), server_verification_cert=hub.ca_file.read_text(), **options
    )


def certificate(directory, name):
    """A self-signed certificate: its files and its SHA-256."""
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run(
        [*command, "-subj", f"/CN={name}", "-days", "2", "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    der = subprocess.run(["openssl", "x509", "-in", cert, "-outform", "DER"], check=True, capture_output=True).stdout
    return X509(cert_file=str(cert), key_file=str(key)), cert.read_text(), hashlib.sha256(der).hexdigest()


def test_a_token_is_renewed_before_it_ends(hub):
    # The SDK renews 120 s before the end: here after 3 s.
    client = connected(hub, sastoken_ttl=123)
    try:
        client.connect()
        hub.wait_for("device connected.*session_present=true")
        assert client.get_twin()["desired"] == {"$version": 1}
    finally:
        client.shutdown()


def test_desired_properties_methods_and_messages_reach_the_device(hub, registry):
    client = connected(hub)
    patches, calls, messages = [], [], []
    news = threading.Condition()

    def note(where, what):
        with news:
            where.append(what)
            news.notify_all()

    def answer(request):
        note(calls, request.payload)
        client.send_method_response(MethodResponse.create_from_method_request(request, 200, request.payload))

    try:
        client.on_twin_desired_properties_patch_received = lambda patch: note(patches, patch)
        client.on_method_request_received = answer
        client.on_message_received = lambda message: note(messages, message)
        client.connect()
        registry.update_twin("gw1", Twin(properties=TwinProperties(desired={"interval": 5})))
        for payload in [{"a": 1}, None, "text", [1, 2]]:
            call = CloudToDeviceMethod(method_name="x", payload=payload, connect_timeout_in_seconds=30)
            reply = registry.invoke_device_method("gw1", call)
            # The service SDK sends "" where there is no payload.
            assert (reply.status, reply.payload) == (200, payload if payload is not None else "")
        hub.emulator("send", "gw1", "hello", "--property", "k=v")
        with news:
            assert news.wait_for(lambda: patches and messages, timeout=PATIENCE), (patches, messages)
        assert patches == [{"interval": 5, "$version": 2}]
        assert (messages[0].data, messages[0].custom_properties) == (b"hello", {"k": "v"})
        deadline = time.monotonic() + PATIENCE
        while registry.get_twin("gw1").cloud_to_device_message_count:
            assert time.monotonic() < deadline, "the message is not acknowledged"
            time.sleep(0.05)
    finally:
        client.shutdown()


def test_a_module_of_its_own(hub, registry):
    registry.create_module_with_sas("gw1", "m", "", "", "")
    client = connected(hub, IoTHubModuleClient, "gw1~m")
    try:
        client.patch_twin_reported_properties({"a": 1})
        assert client.get_twin()["reported"] == {"a": 1, "$version": 2}
        client.send_message("hello")
    finally:
        client.shutdown()
    assert registry.get_module_twin("gw1", "m").properties.reported["a"] == 1


def test_a_certificate_instead_of_a_key(hub, registry, tmp_path, websockets):
    x509, _, thumbprint = certificate(tmp_path, "cam1")
    registry.create_device_with_x509("cam1", thumbprint, thumbprint, "enabled")
    client = IoTHubDeviceClient.create_from_x509_certificate(
        x509=x509,
        hostname=ADDRESS,
        device_id="cam1",
        server_verification_cert=hub.ca_file.read_text(),
        websockets=websockets,
    )
    try:
        client.patch_twin_reported_properties({"a": 1})
        assert client.get_twin()["reported"] == {"a": 1, "$version": 2}
    finally:
        client.shutdown()


def test_provisioning_by_key_and_by_certificate(hub, registry, tmp_path, websockets):
    key = base64.b64encode(bytes(range(32))).decode()
    enrol_group(hub, "fleet", key)
    derived = base64.b64encode(hmac.new(bytes(range(32)), b"cam1", hashlib.sha256).digest()).decode()
    x509, pem, _ = certificate(tmp_path, "cam2")
    attestation = {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": pem}}}}
    enrol(hub, "/enrollments/cam2", {"registrationId": "cam2", "attestation": attestation})

    service = {
        "provisioning_host": ADDRESS,
        "id_scope": (hub.data / "id-scope").read_text().strip(),
        "server_verification_cert": hub.ca_file.read_text(),
        "websockets": websockets,
    }
    for client, name in [
        (ProvisioningDeviceClient.create_from_symmetric_key(registration_id="cam1", symmetric_key=derived, **service), "cam1"),
        (ProvisioningDeviceClient.create_from_x509_certificate(registration_id="cam2", x509=x509, **service), "cam2"),
    ]:
        result = client.register()
        state = result.registration_state
        assert (result.status, state.assigned_hub, state.device_id) == ("assigned", ADDRESS, name)
        assert registry.get_device(name).status == "enabled"

    client = IoTHubDeviceClient.create_from_symmetric_key(
        derived, ADDRESS, "cam1", server_verification_cert=hub.ca_file.read_text()
    )
    try:
        assert client.get_twin()["desired"] == {"$version": 1}
    finally:
        client.shutdown()
