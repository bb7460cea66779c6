// ioredis with its default settings, while nodes come and go: `steady.mjs plain|cluster HOST PORT FILE`.
// Reads, writes and counts until FILE is there. Prints what an application saw, and exits with 1 if that was any error or a wrong answer.
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as pause } from "node:timers/promises";

const require = createRequire(`${process.env.NODE_CLIENTS}/package.json`);
const { Cluster, Redis } = require("ioredis");
const { version } = require("ioredis/package.json");
const [mode, host, port, file] = process.argv.slice(2);
const loops = 8;
const rest = 3;

const faults = new Map();
let requests = 0;

function connect() {
  const node = { host, port: Number(port) };
  const redis = mode === "cluster" ? new Cluster([node]) : new Redis(node);
  // Of connections, which it makes anew by itself: no request fails by these.
  redis.on("error", () => {});
  return redis;
}

async function expect(call, expected) {
  requests += 1;
  const fault = await call().then(
    (answer) => (answer === expected ? null : `${answer}, not ${expected}`),
    (error) => String(error),
  );
  if (fault) faults.set(fault, (faults.get(fault) ?? 0) + 1);
}

async function run(redis, number) {
  const name = `${mode}:io:${number}`;
  for (let count = 1; !existsSync(file); count += 1) {
    // An increment that is lost or made twice shows in all that follow.
    await expect(() => redis.incr(`${name}:n`), count);
    await expect(() => redis.set(`${name}:${count % 100}`, count), "OK");
    await expect(() => redis.get(`${name}:${count % 100}`), String(count));
    await pause(rest);
  }
}

// Half of them share a connection, or a set of those.
const clients = [connect(), ...Array.from({ length: loops / 2 }, connect)];
await Promise.all(Array.from({ length: loops }, (_, number) => run(clients[Math.max(0, number - loops / 2)], number)));
clients.forEach((redis) => redis.disconnect());
const seen = [...faults.values()].reduce((sum, count) => sum + count, 0);
console.log(`ioredis ${version}, ${mode}: ${requests} requests, ${seen} faults`);
for (const [words, count] of [...faults].slice(0, 5)) console.log(`    ${count} × ${words}`);
process.exit(seen ? 1 : 0);
