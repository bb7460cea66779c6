// node-redis against a running server: `node_redis.mjs HOST PORT`. Throws at the first difference.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_CLIENTS}/package.json`);
const { createClient, createClientPool } = require("redis");
const [host, port] = process.argv.slice(2);
const options = (RESP) => ({ RESP, socket: { host, port: Number(port), reconnectStrategy: false } });

async function strings(client) {
  assert.equal(await client.set("k", "v", { EX: 100 }), "OK");
  assert.equal(await client.set("k", "w", { NX: true }), null);
  assert.equal(await client.getEx("k", { type: "PERSIST" }), "v");
  assert.equal(await client.ttl("k"), -1);
  await client.mSet({ a: "1", b: "2" });
  assert.deepEqual(await client.mGet(["a", "b", "none"]), ["1", "2", null]);
  assert.equal(await client.incrBy("n", 5), 5);
  assert.equal(await client.getRange("k", 0, -1), "v");
  assert.equal(await client.type("k"), "string");
  await assert.rejects(client.incr("k"), /ERR value is not an integer or out of range/);
}

async function hashesAndBitmaps(client) {
  assert.equal(await client.hSet("h", { a: "1", b: "2" }), 2);
  assert.deepEqual({ ...(await client.hGetAll("h")) }, { a: "1", b: "2" });
  assert.deepEqual(await client.hmGet("h", ["a", "none"]), ["1", null]);
  assert.equal(await client.hIncrBy("h", "a", 2), 3);
  assert.deepEqual((await client.hRandFieldCountWithValues("h", 2)).length, 2);
  assert.equal(await client.setBit("bits", 3, 1), 0);
  assert.equal(await client.bitCount("bits"), 1);
  assert.equal(await client.bitPos("bits", 1), 3);
  await assert.rejects(client.get("h"), /WRONGTYPE/);
}

async function iterators(client) {
  await client.mSet(Object.fromEntries(Array.from({ length: 300 }, (_, n) => [`key:${n}`, String(n)])));
  const seen = new Set();
  for await (const keys of client.scanIterator({ MATCH: "key:*", COUNT: 40 })) keys.forEach((key) => seen.add(key));
  assert.equal(seen.size, 300);
  await client.hSet("h", Object.fromEntries(Array.from({ length: 600 }, (_, n) => [`f${n}`, String(n)])));
  let fields = 0;
  for await (const entries of client.hScanIterator("h", { COUNT: 50 })) fields += entries.length;
  assert.ok(fields >= 600);
}

async function pipelines(client) {
  const replies = await Promise.all(Array.from({ length: 500 }, (_, n) => client.set(`p${n}`, String(n))));
  assert.ok(replies.every((reply) => reply === "OK"));
  const batch = client.multi();
  for (let n = 0; n < 100; n++) batch.get(`p${n}`);
  assert.deepEqual(await batch.execAsPipeline(), Array.from({ length: 100 }, (_, n) => String(n)));
}

async function connection(client) {
  assert.equal(await client.ping(), "PONG");
  assert.equal(await client.clientSetName("me"), "OK");
  assert.equal(await client.clientGetName(), "me");
  assert.equal((await client.clientInfo()).name, "me");
  assert.match(await client.info("server"), /redis_version:7\./);
  await client.configSet("maxmemory-samples", "5");
  assert.equal((await client.configGet("maxmemory-samples"))["maxmemory-samples"], "5");
  assert.deepEqual(await client.commandGetKeys(["GET", "k"]), ["k"]);
  assert.ok((await client.commandCount()) > 80);
  await client.select(2);
  assert.equal(await client.dbSize(), 0);
}

async function pool() {
  const clients = await createClientPool(options(3), { maximum: 10 }).connect();
  await Promise.all(Array.from({ length: 200 }, () => clients.incr("pooled")));
  assert.equal(await clients.get("pooled"), "200");
  clients.destroy();
}

for (const RESP of [2, 3]) {
  for (const test of [strings, hashesAndBitmaps, iterators, pipelines, connection]) {
    const client = await createClient(options(RESP)).on("error", (error) => { throw error; }).connect();
    await client.flushAll();
    await test(client);
    await client.close();
    console.log(`ok: ${test.name}, RESP${RESP}`);
  }
}
await pool();
console.log("ok: pool");
