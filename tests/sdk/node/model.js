// Two parsers of DTDL, of Microsoft and of Digital Catapult (which has Microsoft's .NET
// parser inside), take the device's model, and refuse each of the broken ones.
"use strict";

const assert = require("assert");
const { execFileSync } = require("child_process");
const path = require("path");
const { pathToFileURL } = require("url");

const { createParser, ModelParsingOption } = require("@azure/dtdl-parser");

const MODEL = JSON.parse(execFileSync(process.env.AGENT, ["--print-model"], { encoding: "utf8" }));

// What is wrong with each, and how it comes to be so.
const BROKEN = {
  "a schema that is none": ([gateway]) => {
    gateway.contents.find((content) => content.name === "rebootTime").schema = "instant";
  },
  "a component's model that is missing": (interfaces) => interfaces.pop(),
  "a name that may not be": ([gateway]) => {
    gateway.contents.find((content) => content.name === "boot").name = "the boot";
  },
  "one name twice": ([gateway]) => {
    gateway.contents.find((content) => content.name === "boot").name = "reboot";
  },
  "arrays in DTDL version 2": ([gateway]) => {
    gateway["@context"] = "dtmi:dtdl:context;2";
  },
};

// ES modules are not looked for in NODE_PATH.
async function digitalCatapult() {
  const entry = path.join(process.env.NODE_PATH, "@digicatapult/dtdl-parser/build/index.js");
  const parser = await (await import(pathToFileURL(entry))).getInterop();
  return async (interfaces) => Object.keys(JSON.parse(parser.parse(JSON.stringify(interfaces))));
}

async function microsoft(interfaces) {
  const parser = createParser(ModelParsingOption.PermitAnyTopLevelElement);
  return Object.keys(await parser.parse(interfaces.map((one) => JSON.stringify(one))));
}

async function main() {
  const parsers = { microsoft, "digital catapult": await digitalCatapult() };
  for (const [name, parse] of Object.entries(parsers)) {
    const known = await parse(MODEL);
    for (const id of ["dtmi:iotdm:gateway;1", "dtmi:azure:DeviceManagement:DeviceInformation;1"]) {
      assert(known.includes(id), `${name} does not know ${id}`);
    }
    for (const [what, breaks] of Object.entries(BROKEN)) {
      const interfaces = structuredClone(MODEL);
      breaks(interfaces);
      await assert.rejects(parse(interfaces), undefined, `${name} takes a model with ${what}`);
    }
    console.log(`${name}: ${known.length} elements, ${Object.keys(BROKEN).length} broken models refused`);
  }
  console.log("reached the end of model.js");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
