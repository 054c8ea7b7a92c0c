"""The official service SDK: many devices, modules, certificates and jobs."""

import time

import pytest
from azure.iot.hub import IoTHubConfigurationManager, IoTHubJobManager
from azure.iot.hub.models import (
    CloudToDeviceMethod,
    Configuration,
    ConfigurationContent,
    ExportImportDevice,
    JobRequest,
    QuerySpecification,
    Twin,
    TwinProperties,
)
from msrest.exceptions import HttpOperationError
from pyharness.process import PATIENCE


@pytest.fixture
def jobs(hub, registry):
    return IoTHubJobManager.from_connection_string(hub.service_string)


def query(registry, text):
    return registry.query_iot_hub(QuerySpecification(query=text)).items


def ended(jobs, job_id):
    """The job once it has ended; it has to be polled."""
    deadline = time.monotonic() + PATIENCE
    while True:
        job = jobs.get_scheduled_job(job_id)
        if job.status in ("completed", "failed", "cancelled"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.05)


def test_many_at_once_and_how_many_they_are(registry):
    devices = [ExportImportDevice(id=f"d{n}", import_mode="create", tags={"even": n % 2 == 0}) for n in range(5)]
    done = registry.bulk_create_or_update_devices(devices)
    assert done.is_successful and done.errors == []
    mixed = [
        ExportImportDevice(id="d0", import_mode="create"),
        ExportImportDevice(id="d1", import_mode="delete"),
    ]
    done = registry.bulk_create_or_update_devices(mixed)
    assert not done.is_successful
    assert [(error.device_id, error.error_code) for error in done.errors] == [("d0", "409001")]
    assert [device.device_id for device in registry.get_devices()] == ["d0", "d2", "d3", "d4", "gw1"]
    rows = query(registry, "SELECT tags.even AS even, COUNT() AS n FROM devices WHERE is_defined(tags.even) GROUP BY tags.even")
    counted = {row.additional_properties["even"]: row.additional_properties["n"] for row in rows}
    assert counted == {True: 3, False: 1}


def test_modules(registry):
    created = registry.create_module_with_sas("gw1", "m", "me", "", "")
    assert (created.module_id, created.managed_by) == ("m", "me")
    assert [module.module_id for module in registry.get_modules("gw1")] == ["m"]
    twin = registry.get_module_twin("gw1", "m")
    registry.update_module_twin("gw1", "m", Twin(properties=TwinProperties(desired={"a": 1})), twin.etag)
    found = query(registry, "SELECT * FROM devices.modules WHERE properties.desired.a = 1")
    assert [(twin.device_id, twin.module_id) for twin in found] == [("gw1", "m")]
    with pytest.raises(HttpOperationError) as refusal:
        registry.invoke_device_module_method("gw1", "m", CloudToDeviceMethod(method_name="x"))
    assert refusal.value.response.status_code == 404
    registry.delete_module("gw1", "m")
    assert registry.get_modules("gw1") == []


def test_identities_by_certificate(registry):
    thumbprints = ["AB" * 20, "CD" * 32]
    created = registry.create_device_with_x509("cam1", *thumbprints, "enabled")
    assert created.authentication.type == "selfSigned"
    assert created.authentication.x509_thumbprint.secondary_thumbprint == thumbprints[1]
    created = registry.create_device_with_certificate_authority("cam2", "enabled")
    assert created.authentication.type == "certificateAuthority"
    changed = registry.update_device_with_sas("cam2", created.etag, "", "", "enabled")
    assert changed.authentication.type == "sas" and changed.authentication.symmetric_key.primary_key


def test_jobs(registry, jobs):
    for n in range(3):
        registry.create_device_with_sas(f"d{n}", "", "", "enabled")
    change = JobRequest(
        job_id="tags", type="scheduleUpdateTwin", update_twin=Twin(etag="*", tags={"wave": 1}),
        query_condition="deviceId IN ['d0', 'd1']", start_time="2020-01-01T00:00:00Z", max_execution_time_in_seconds=60,
    )
    assert jobs.create_scheduled_job("tags", change).status == "queued"
    job = ended(jobs, "tags")
    assert job.status == "completed" and job.device_job_statistics.succeeded_count == 2
    assert registry.get_twin("d1").tags == {"wave": 1} and not registry.get_twin("d2").tags

    call = JobRequest(
        job_id="reboot", type="scheduleDeviceMethod", query_condition="tags.wave = 1",
        cloud_to_device_method=CloudToDeviceMethod(method_name="rebootDevice", payload={}),
        max_execution_time_in_seconds=60,
    )
    jobs.create_scheduled_job("reboot", call)
    assert ended(jobs, "reboot").device_job_statistics.failed_count == 2
    rows = query(registry, "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'reboot'")
    assert [row.additional_properties["error"]["code"] for row in rows] == ["404103-DeviceNotOnline"] * 2

    later = JobRequest(
        job_id="later", type="scheduleUpdateTwin", update_twin=Twin(etag="*", tags={"x": 1}),
        query_condition="*", start_time="2099-01-01T00:00:00Z", max_execution_time_in_seconds=60,
    )
    jobs.create_scheduled_job("later", later)
    assert jobs.cancel_scheduled_job("later").status == "cancelled"
    # Of a job that is not there the service says no more.
    assert jobs.get_scheduled_job("nobody's").status == "unknown"
    with pytest.raises(HttpOperationError) as refusal:
        jobs.cancel_scheduled_job("nobody's")
    assert refusal.value.response.status_code == 404
    assert jobs.get_import_export_jobs() == []


def test_configurations(hub, registry):
    configurations = IoTHubConfigurationManager.from_connection_string(hub.service_string)
    wanted = Configuration(
        id="c1", priority=5, target_condition="tags.site = 'x'", schema_version="1.0",
        content=ConfigurationContent(device_content={"properties.desired.interval": 5}),
    )
    created = configurations.create_configuration(wanted)
    assert created.content.device_content == {"properties.desired.interval": 5}
    created.priority = 6
    assert configurations.update_configuration(created, created.etag).priority == 6
    assert [found.id for found in configurations.get_configurations()] == ["c1"]
    configurations.delete_configuration("c1")
    assert configurations.get_configurations() == []
