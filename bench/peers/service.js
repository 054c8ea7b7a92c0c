// An operator's script on azure-iothub. Arguments: "twin" or "invoke", the
// device.
'use strict';

const iothub = require('azure-iothub');

const string = process.env.IOTHUB_CONNECTION_STRING;
const [what, device] = process.argv.slice(2);
const asked = what === 'twin'
  ? iothub.Registry.fromConnectionString(string).getTwin(device).then(({ responseBody }) => responseBody)
  : iothub.Client.fromConnectionString(string)
    .invokeDeviceMethod(device, { methodName: 'getRebootStatus', payload: {} })
    .then(({ result }) => result);
// Node also ends, with 0, when nothing is left that could settle a promise: such
// a run is not to count as one.
process.exitCode = 1;
asked.then((answer) => {
  console.log(JSON.stringify(answer));
  process.exitCode = 0;
});
