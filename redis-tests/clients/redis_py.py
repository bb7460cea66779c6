"""redis-py against a running server: `redis_py.py HOST PORT`. Prints what failed and exits with 1."""

import concurrent.futures
import sys
import time

import redis

HOST, PORT = sys.argv[1], int(sys.argv[2])


def client(**options):
    return redis.Redis(host=HOST, port=PORT, **options)


def strings(r):
    assert r.set("k", "v", ex=100) is True
    assert 0 < r.ttl("k") <= 100
    assert r.get("k") == b"v"
    assert r.set("k", "w", nx=True) is None
    assert r.set("k", "w", get=True) == b"v"
    assert r.set("k", "x", keepttl=True) is True
    assert r.getex("k", persist=True) == b"x" and r.ttl("k") == -1
    assert r.getdel("k") == b"x" and r.get("k") is None
    assert r.mset({"a": 1, "b": b"\x00\xff", "c": 1.5}) is True
    assert r.mget("a", "b", "none") == [b"1", b"\x00\xff", None]
    assert r.msetnx({"c": 1, "d": 2}) in (False, 0)
    assert r.incr("n") == 1 and r.decrby("n", 5) == -4
    assert r.incrbyfloat("f", 0.1) == 0.1
    assert r.append("a", "23") == 3 and r.getrange("a", 1, -1) == b"23"
    assert r.setrange("a", 1, "X") == 3 and r.strlen("a") == 3
    assert r.setnx("new", 1) is True and r.setnx("new", 1) is False
    r.mset({"s1": "ohmytext", "s2": "mynewtext"})
    assert r.lcs("s1", "s2") == b"mytext" and r.lcs("s1", "s2", len=True) == 6


def keys(r):
    r.mset({f"key:{n}": n for n in range(500)})
    assert r.dbsize() == 500
    assert sorted(r.scan_iter(match="key:1*", count=50)) == sorted(f"key:{n}".encode() for n in range(500) if str(n)[0] == "1")
    assert len(list(r.scan_iter(_type="string"))) == 500
    assert r.exists("key:1", "key:2", "nosuch") == 2 and r.delete("key:1", "nosuch") == 1 and r.unlink("key:2") == 1
    assert r.rename("key:3", "renamed") is True and r.type("renamed") == b"string"
    assert r.expire("renamed", 100) is True and r.expire("renamed", 50, gt=True) is False
    assert r.expireat("renamed", 33177117420) is True and r.expiretime("renamed") == 33177117420
    assert r.persist("renamed") is True and r.pttl("renamed") == -1
    assert r.copy("renamed", "copied") is True and r.object("encoding", "copied") == b"int"
    assert r.randomkey() is not None and r.touch("copied") == 1
    try:
        r.rename("nosuch", "x")
        raise AssertionError("renaming a missing key must fail")
    except redis.ResponseError as error:
        assert str(error) == "no such key", error
    r.hset("h", "f", "v")
    try:
        r.get("h")
        raise AssertionError("GET of a hash must fail")
    except redis.ResponseError as error:
        assert "wrong kind of value" in str(error), error


def bitmaps(r):
    assert r.setbit("bits", 7, 1) == 0 and r.getbit("bits", 7) == 1
    assert r.bitcount("bits") == 1 and r.bitpos("bits", 1) == 7
    r.set("x", b"\xf0"), r.set("y", b"\x0f")
    assert r.bitop("OR", "z", "x", "y") == 1 and r.get("z") == b"\xff"
    replies = r.bitfield("field").set("u8", 0, 255).incrby("u8", 0, 1, overflow="FAIL").get("u4", "#1").execute()
    assert replies == [0, None, 15], replies


def hashes(r):
    assert r.hset("h", mapping={"a": 1, "b": 2}) == 2
    assert r.hgetall("h") == {b"a": b"1", b"b": b"2"}
    assert r.hget("h", "a") == b"1" and r.hmget("h", "a", "none") == [b"1", None]
    assert r.hincrby("h", "a", 5) == 6 and r.hincrbyfloat("h", "b", 0.5) == 2.5
    assert r.hexists("h", "a") is True and r.hlen("h") == 2 and r.hstrlen("h", "b") == 3
    assert r.hkeys("h") == [b"a", b"b"] and r.hvals("h") == [b"6", b"2.5"]
    assert sorted(r.hrandfield("h", 2)) == [b"a", b"b"] and r.hdel("h", "a") == 1
    r.hset("big", mapping={f"f{n}": n for n in range(1000)})
    assert len(dict(r.hscan_iter("big", count=100))) == 1000
    assert r.hsetnx("h", "b", 1) in (False, 0)


def pipelines(r):
    with r.pipeline(transaction=False) as pipeline:
        for n in range(1000):
            pipeline.set(f"p{n}", n)
        for n in range(1000):
            pipeline.get(f"p{n}")
        replies = pipeline.execute()
    assert replies[:1000] == [True] * 1000 and replies[1000:] == [str(n).encode() for n in range(1000)]
    with r.pipeline(transaction=False) as pipeline:
        replies = pipeline.set("s", "v").hget("s", "f").get("s").execute(raise_on_error=False)
    assert replies[0] is True and isinstance(replies[1], redis.ResponseError) and replies[2] == b"v", replies


def connection(r):
    assert r.ping() is True and r.echo("hi") == b"hi"
    assert r.client_setname("me") is True and r.client_getname() in (b"me", "me")
    assert r.client_info()["name"] == "me" and r.client_id() == int(r.client_info()["id"])
    assert any(entry["name"] == "me" for entry in r.client_list())
    assert r.config_set("maxmemory-samples", 6) is True
    assert r.config_get("maxmemory-samples") in ({"maxmemory-samples": "6"}, {b"maxmemory-samples": b"6"})
    r.config_set("maxmemory-samples", 5)
    seconds, _ = r.time()
    assert abs(seconds - time.time()) < 60
    info = r.info()
    assert info["redis_version"].startswith("7.") and info["connected_clients"] >= 1
    assert "get" in r.command() and r.command_count() > 80
    assert r.command_getkeys("MSET", "a", 1, "b", 2) in ([b"a", b"b"], ["a", "b"])
    assert isinstance(r.slowlog_get(), list) and r.slowlog_len() >= 0
    r.set("k", "v")
    assert r.memory_usage("k") > 0


def databases_and_decoding():
    with client(db=3, decode_responses=True) as r:
        r.set("k", "wört")
        assert r.get("k") == "wört" and r.keys("*") == ["k"]
        r.hset("h", mapping={"f": "v"})
        assert r.hgetall("h") == {"f": "v"}
    with client(db=0) as r:
        assert r.get("k") is None
        r.swapdb(0, 3)
        assert r.get("k") == "wört".encode()


def pool():
    shared = redis.ConnectionPool(host=HOST, port=PORT, max_connections=50)

    def count(_):
        return redis.Redis(connection_pool=shared).incr("counter")

    with concurrent.futures.ThreadPoolExecutor(20) as threads:
        counted = sorted(threads.map(count, range(500)))
    assert counted == list(range(1, 501))
    shared.disconnect()


def main():
    with client() as cleaner:
        for protocol in (2, 3):
            for test in (strings, keys, bitmaps, hashes, pipelines, connection):
                cleaner.flushall()
                with client(protocol=protocol) as r:
                    test(r)
                print(f"ok: {test.__name__}, protocol {protocol}")
        for test in (databases_and_decoding, pool):
            cleaner.flushall()
            test()
            print(f"ok: {test.__name__}")


main()
