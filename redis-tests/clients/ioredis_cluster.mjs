// ioredis against a running cluster: `ioredis_cluster.mjs plain|cluster HOST PORT`. Throws at the first difference.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_CLIENTS}/package.json`);
const { Cluster, Redis } = require("ioredis");
const [mode, host, port] = process.argv.slice(2);
const keys = Array.from({ length: 300 }, (_, n) => `${mode}:io:${n}`);

function connect() {
  const node = { host, port: Number(port) };
  return mode === "cluster" ? new Cluster([node]) : new Redis(node);
}

async function strings(redis) {
  await Promise.all(keys.map((key, n) => redis.set(key, n, "EX", 100)));
  assert.deepEqual(await Promise.all(keys.map((key) => redis.incr(key))), keys.map((_, n) => n + 1));
  assert.deepEqual(await Promise.all(keys.map((key) => redis.get(key))), keys.map((_, n) => String(n + 1)));
}

async function hashes(redis) {
  // Every node has its turn with the same keys.
  for (const key of keys) await redis.del(`${key}:h`);
  for (const key of keys) assert.equal(await redis.hset(`${key}:h`, { a: 1, b: key }), 2);
  for (const key of keys) assert.deepEqual(await redis.hgetall(`${key}:h`), { a: "1", b: key });
}

// A client of clusters leaves it to its user to send keys of one slot only.
async function manyKeys(redis) {
  const names = mode === "cluster" ? ["{m}:a", "{m}:b", "{m}:c"] : keys.map((key) => `${key}:m`);
  assert.equal(await redis.mset(Object.fromEntries(names.map((name) => [name, name]))), "OK");
  assert.deepEqual(await redis.mget(...names), names);
  assert.equal(await redis.exists(...names), names.length);
  assert.equal(await redis.del(...names), names.length);
}

// The same: a pipeline of a client of clusters stays within one node.
async function pipelines(redis) {
  const name = (n) => (mode === "cluster" ? `{p}:${n}` : `plain:iop:${n}`);
  const pipeline = redis.pipeline();
  for (let n = 0; n < 300; n++) pipeline.set(name(n), n).get(name(n));
  const replies = await pipeline.exec();
  assert.equal(replies.length, 600);
  assert.ok(replies.every(([error, reply], n) => error === null && reply === (n % 2 ? String((n - 1) / 2) : "OK")));
}

async function nodes(redis) {
  if (mode === "cluster") assert.ok(redis.nodes("master").length >= 3);
  else assert.equal(await redis.ping(), "PONG");
}

const redis = connect();
for (const test of [strings, hashes, manyKeys, pipelines, nodes]) {
  await test(redis);
  console.log(`ok: ${test.name}, ${mode}`);
}
await redis.quit();
