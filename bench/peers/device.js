// A device on azure-iot-device-mqtt: methods and twin subscribed, each call
// answered. Argument: a file with the connection string.
'use strict';

const fs = require('node:fs');
const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

const client = Client.fromConnectionString(fs.readFileSync(process.argv[2], 'utf8').trim(), Mqtt);
for (const method of ['rebootDevice', 'getRebootStatus']) {
  client.onDeviceMethod(method, (request, response) => response.send(200, {}, () => {}));
}
client.open()
  .then(() => client.getTwin())
  .then((twin) => {
    twin.on('properties.desired', () => {});
    console.log('ready');
  });
