// What the scenarios share. The environment says where the hub is.
'use strict';

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const data = process.env.EMULATOR_DATA;
const program = process.env.EMULATOR;

/** A file of the emulator's directory, without its last newline. */
exports.file = (name) => fs.readFileSync(path.join(data, name), 'utf8').trim();

/** Runs a command of the emulator on the running one. */
exports.emulator = (...args) =>
  execFileSync(program, [...args, '--data', data], { encoding: 'utf8' });

/** Resolves with the first value that is truthy; polled, since services have no notification. */
exports.until = async (what, look) => {
  const deadline = Date.now() + 60000;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert(Date.now() < deadline, `${what} does not happen`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};

/**
 * Runs a scenario and ends the process, with its open connections, as it went.
 * A promise that never settles lets Node end by itself, with nothing said; so
 * success is the last line, for which the test looks.
 */
exports.run = (scenario) => {
  process.exitCode = 1;
  return scenario().then(
    () => {
      console.log(`reached the end of ${path.basename(process.argv[1])}`);
      process.exit(0);
    },
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
};
