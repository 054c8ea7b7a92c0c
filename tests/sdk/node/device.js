// The official device SDK as a device and the official service SDK as its
// operator, over the transport that the first argument names.
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { Client, Message } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const iothub = require('azure-iothub');
const { emulator, file, run, until } = require('./hub');

const transport = { mqtt: Mqtt, websocket: MqttWs }[process.argv[2]];

run(async () => {
  const service = iothub.Client.fromConnectionString(file('service-connection-string'));
  const registry = iothub.Registry.fromConnectionString(file('service-connection-string'));
  const device = Client.fromConnectionString(file('devices/gw1'), transport);
  const calls = [];
  device.onDeviceMethod('rebootDevice', (request, response) => {
    calls.push(request.payload);
    response.send(200, { accepted: true }, (error) => assert.ifError(error));
  });
  await device.open();

  const twin = await device.getTwin();
  assert.equal(twin.properties.desired.$version, 1);
  const changed = new Promise((resolve) => {
    twin.on('properties.desired.interval', (interval) => interval === 5 && resolve());
  });
  const report = (patch) =>
    new Promise((resolve, reject) => {
      twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve()));
    });
  await report({ firmware: { version: 2 }, list: [1, 'x'] });
  await assert.rejects(report({ 'no.dots': 1 }));
  await registry.updateTwin('gw1', { properties: { desired: { interval: 5 } }, tags: { site: 'a' } }, '*');
  await changed;
  const seen = (await registry.getTwin('gw1')).responseBody;
  assert.deepEqual(seen.properties.reported.firmware, { version: 2 });
  assert.equal(seen.connectionState, 'Connected');

  const invoke = (payload) =>
    service.invokeDeviceMethod('gw1', {
      methodName: 'rebootDevice', payload, responseTimeoutInSeconds: 30, connectTimeoutInSeconds: 30,
    });
  assert.deepEqual((await invoke({ id: 'r1' })).result, { status: 200, payload: { accepted: true } });
  await invoke(undefined);
  assert.deepEqual(calls, [{ id: 'r1' }, null]);
  await assert.rejects(service.invokeDeviceMethod('nobody', { methodName: 'x' }));

  const received = once(device, 'message');
  emulator('send', 'gw1', 'hello', '--property', 'k=v');
  const [message] = await received;
  assert.equal(message.getData().toString(), 'hello');
  assert.equal(message.properties.getValue('k'), 'v');
  await device.complete(message);
  await until('the acknowledgement', async () =>
    (await registry.getTwin('gw1')).responseBody.cloudToDeviceMessageCount === 0);
  await device.sendEvent(new Message(JSON.stringify({ temperature: 20 })));

  // The SDK notices and comes back by itself.
  emulator('fault', 'set', 'gw1', 'drop-link');
  assert.deepEqual((await invoke({ id: 'r2' })).result.payload, { accepted: true });
  await report({ again: true });
  await device.close();
});
