// The official service SDK: registry, queries, jobs.
'use strict';

const assert = require('node:assert/strict');
const iothub = require('azure-iothub');
const { file, run, until } = require('./hub');

run(async () => {
  const registry = iothub.Registry.fromConnectionString(file('service-connection-string'));
  const { responseBody: created } = await registry.create({ deviceId: 'cam1', status: 'enabled' });
  assert.equal(Buffer.from(created.authentication.symmetricKey.primaryKey, 'base64').length, 32);
  await assert.rejects(registry.create({ deviceId: 'cam1' }), { name: 'DeviceAlreadyExistsError' });
  await assert.rejects(registry.get('nobody'), { name: 'DeviceNotFoundError' });
  const { responseBody: disabled } =
    await registry.update({ deviceId: 'cam1', status: 'disabled', statusReason: 'stolen' });
  assert.equal(disabled.status, 'disabled');
  const thumbprint = 'ab'.repeat(20).toUpperCase();
  const { responseBody: byCertificate } = await registry.create({
    deviceId: 'cam2', authentication: { type: 'selfSigned', x509Thumbprint: { primaryThumbprint: thumbprint } },
  });
  assert.equal(byCertificate.authentication.x509Thumbprint.primaryThumbprint, thumbprint);

  const { responseBody: added } =
    await registry.addDevices([{ deviceId: 'b1' }, { deviceId: 'b2' }, { deviceId: 'b3' }]);
  assert.equal(added.isSuccessful, true);
  const { responseBody: removed } = await registry.removeDevices([{ deviceId: 'b3' }], true);
  assert.equal(removed.isSuccessful, true);
  const { responseBody: all } = await registry.list();
  assert.deepEqual(all.map((device) => device.deviceId).sort(), ['b1', 'b2', 'cam1', 'cam2', 'gw1']);
  const { responseBody: statistics } = await registry.getRegistryStatistics();
  assert.equal(statistics.disabledDeviceCount, 1);

  const { responseBody: module } = await registry.addModule({ deviceId: 'b1', moduleId: 'm' });
  assert.equal(module.moduleId, 'm');
  const { responseBody: modules } = await registry.getModulesOnDevice('b1');
  assert.equal(modules.length, 1);
  await registry.removeModule('b1', 'm');
  await registry.delete('cam2');

  const query = registry.createQuery('SELECT * FROM devices', 3);
  const ids = [];
  while (query.hasMoreResults) {
    const page = await query.nextAsTwin();
    assert(page.result.length <= 3);
    ids.push(...page.result.map((twin) => twin.deviceId));
  }
  assert.deepEqual(ids, ['b1', 'b2', 'cam1', 'gw1']);
  const counts = registry.createQuery('SELECT status, COUNT() AS n FROM devices GROUP BY status');
  const { result } = await counts.next();
  assert.deepEqual(result, [{ status: 'disabled', n: 1 }, { status: 'enabled', n: 3 }]);

  const jobs = iothub.JobClient.fromConnectionString(file('service-connection-string'));
  const patch = { etag: '*', tags: { wave: 1 } };
  await jobs.scheduleTwinUpdate('twins', "deviceId IN ['b1', 'b2']", patch, new Date(), 60);
  const job = await until('the job', async () => {
    const { jobStatus } = await jobs.getJob('twins');
    return jobStatus.status === 'completed' && jobStatus;
  });
  assert.equal(job.deviceJobStatistics.succeededCount, 2);
  const method = { methodName: 'rebootDevice', payload: {}, responseTimeoutInSeconds: 30 };
  await jobs.scheduleDeviceMethod('later', '*', method, new Date(Date.now() + 3600e3), 60);
  assert.equal((await jobs.cancelJob('later')).jobStatus.status, 'cancelled');
  const { result: cancelled } = await jobs.createQuery('scheduleDeviceMethod', 'cancelled').next();
  assert.deepEqual(cancelled.map((found) => found.jobId), ['later']);
  assert.equal((await registry.getTwin('b1')).responseBody.tags.wave, 1);
});
