import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as client from "@hms-gateway/client";

const README = readFileSync("README.md", "utf8");
const METHODS = Object.getOwnPropertyNames(client.HMSServiceClass.prototype).filter((name) => name !== "constructor");

test("the README names exactly the existing methods", () => {
  for (const name of METHODS) assert.match(README, new RegExp(`\\b${name}\\b`), name);
  const used = [...README.matchAll(/HMSService\.(\w+)/g)].map(([, name]) => name ?? "");
  assert.ok(used.length > 8);
  for (const name of used) assert.ok(METHODS.includes(name), name);
});

test("the README imports existing names", () => {
  const imports = [...README.matchAll(/import \{ ([^}]+) \} from ['"]@hms-gateway\/client/g)];
  const names = imports.flatMap(([, list]) => (list ?? "").split(", "));
  assert.ok(names.length > 3);
  for (const name of names) assert.ok(name in client, name);
});
