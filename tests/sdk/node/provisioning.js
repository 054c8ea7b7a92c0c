// The official provisioning client with a group's derived key; the enrolment
// exists.
'use strict';

const assert = require('node:assert/strict');
const { Mqtt, MqttWs } = require('azure-iot-provisioning-device-mqtt');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { Client } = require('azure-iot-device');
const device = require('azure-iot-device-mqtt');
const { file, run } = require('./hub');

const [host, id, key] = [process.env.EMULATOR_HOST, process.env.REGISTRATION_ID, process.env.DEVICE_KEY];

run(async () => {
  for (const [Registering, Connecting] of [[Mqtt, device.Mqtt], [MqttWs, device.MqttWs]]) {
    const security = new SymmetricKeySecurityClient(id, key);
    const client = ProvisioningDeviceClient.create(host, file('id-scope'), new Registering(), security);
    const { assignedHub, deviceId } = await client.register();
    assert.deepEqual([assignedHub, deviceId], [host, id]);
    const text = `HostName=${assignedHub};DeviceId=${deviceId};SharedAccessKey=${key}`;
    const connection = Client.fromConnectionString(text, Connecting);
    await connection.open();
    assert.equal((await connection.getTwin()).properties.desired.$version, 1);
    await connection.close();
  }
});
