// ioredis against a running server: `ioredis.mjs HOST PORT`. Throws at the first difference.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.NODE_CLIENTS}/package.json`);
const { Redis } = require("ioredis");
const [host, port] = process.argv.slice(2);
const connect = (options = {}) => new Redis({ host, port: Number(port), ...options });

async function strings(redis) {
  assert.equal(await redis.set("k", "v", "EX", 100), "OK");
  assert.equal(await redis.set("k", "w", "NX"), null);
  assert.equal(await redis.set("k", "w", "GET"), "v");
  assert.equal(await redis.getdel("k"), "w");
  assert.equal(await redis.mset({ a: 1, b: 2 }), "OK");
  assert.deepEqual(await redis.mget("a", "b", "none"), ["1", "2", null]);
  assert.equal(await redis.incrby("n", 41), 41);
  assert.equal(await redis.incrbyfloat("f", 0.5), "0.5");
  assert.equal(await redis.append("a", "xyz"), 4);
  await redis.setBuffer("bytes", Buffer.from([0, 255, 13, 10]));
  assert.deepEqual(await redis.getBuffer("bytes"), Buffer.from([0, 255, 13, 10]));
  await assert.rejects(redis.incr("a"), /ERR value is not an integer or out of range/);
}

async function hashesAndBitmaps(redis) {
  assert.equal(await redis.hset("h", { a: 1, b: 2 }), 2);
  assert.deepEqual(await redis.hgetall("h"), { a: "1", b: "2" });
  assert.deepEqual(await redis.hmget("h", "a", "none"), ["1", null]);
  assert.equal(await redis.hincrby("h", "a", 1), 2);
  assert.equal(await redis.setbit("bits", 10, 1), 0);
  assert.equal(await redis.bitcount("bits"), 1);
  assert.deepEqual(await redis.bitfield("field", "SET", "u8", 0, 7, "GET", "u8", 0), [0, 7]);
  await assert.rejects(redis.get("h"), /WRONGTYPE/);
}

async function pipelines(redis) {
  const pipeline = redis.pipeline();
  for (let n = 0; n < 500; n++) pipeline.set(`p${n}`, n).get(`p${n}`);
  const replies = await pipeline.exec();
  assert.equal(replies.length, 1000);
  assert.ok(replies.every(([error, reply], n) => error === null && reply === (n % 2 ? String((n - 1) / 2) : "OK")));
}

async function streams(redis) {
  await redis.mset(Object.fromEntries(Array.from({ length: 300 }, (_, n) => [`key:${n}`, n])));
  const seen = new Set();
  for await (const keys of redis.scanStream({ match: "key:*", count: 40 })) keys.forEach((key) => seen.add(key));
  assert.equal(seen.size, 300);
  await redis.hset("h", Object.fromEntries(Array.from({ length: 600 }, (_, n) => [`f${n}`, n])));
  let fields = 0;
  for await (const pairs of redis.hscanStream("h", { count: 50 })) fields += pairs.length / 2;
  assert.ok(fields >= 600);
}

async function connection(redis) {
  assert.equal(await redis.ping(), "PONG");
  assert.equal(await redis.client("SETNAME", "me"), "OK");
  assert.equal(await redis.client("GETNAME"), "me");
  assert.match(await redis.info("server"), /redis_version:7\./);
  assert.equal(await redis.select(2), "OK");
  assert.equal(await redis.dbsize(), 0);
  assert.deepEqual(await redis.call("COMMAND", "GETKEYS", "GET", "k"), ["k"]);
}

async function autoPipelining() {
  const redis = connect({ enableAutoPipelining: true });
  await Promise.all(Array.from({ length: 200 }, () => redis.incr("auto")));
  assert.equal(await redis.get("auto"), "200");
  await redis.quit();
}

async function manyConnections() {
  const clients = Array.from({ length: 20 }, () => connect());
  await Promise.all(clients.map((redis) => redis.incr("many")));
  assert.equal(await clients[0].get("many"), "20");
  await Promise.all(clients.map((redis) => redis.quit()));
}

for (const test of [strings, hashesAndBitmaps, pipelines, streams, connection]) {
  const redis = connect();
  await redis.flushall();
  await test(redis);
  await redis.quit();
  console.log(`ok: ${test.name}`);
}
for (const test of [autoPipelining, manyConnections]) {
  await test();
  console.log(`ok: ${test.name}`);
}
