"""redis-py against a running cluster: `redis_py_cluster.py plain|cluster HOST PORT`. Throws at the first difference.

`plain` knows of no cluster and talks to one node; `cluster` finds the nodes by itself.
"""

import sys

import redis

MODE, HOST, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
KEYS = 300


def client():
    if MODE == "cluster":
        return redis.RedisCluster(host=HOST, port=PORT, decode_responses=True)
    return redis.Redis(host=HOST, port=PORT, decode_responses=True)


def strings(r):
    for n in range(KEYS):
        assert r.set(f"{MODE}:py:{n}", n, ex=100)
    for n in range(KEYS):
        assert r.incrby(f"{MODE}:py:{n}", 1) == n + 1
        assert r.get(f"{MODE}:py:{n}") == str(n + 1)
        assert 0 < r.ttl(f"{MODE}:py:{n}") <= 100


def hashes(r):
    for n in range(KEYS):
        # Every node has its turn with the same keys.
        r.delete(f"{MODE}:pyh:{n}")
        assert r.hset(f"{MODE}:pyh:{n}", mapping={"a": n, "b": "x"}) == 2
        assert r.hgetall(f"{MODE}:pyh:{n}") == {"a": str(n), "b": "x"}


def many_keys(r):
    """Commands that are split by their keys: a client that knows of clusters splits them itself."""
    names = [f"{MODE}:pym:{n}" for n in range(KEYS)]
    pairs = {name: name.upper() for name in names}
    if MODE == "cluster":
        assert r.mset_nonatomic(pairs)
        assert r.mget_nonatomic(names) == list(pairs.values())
    else:
        assert r.mset(pairs)
        assert r.mget(names) == list(pairs.values())
    assert r.exists(*names) == KEYS
    assert r.touch(*names) == KEYS
    assert r.delete(*names[:100]) == 100
    assert r.unlink(*names) == KEYS - 100
    assert r.exists(*names) == 0


def pipelines(r):
    with r.pipeline(transaction=False) as pipe:
        for n in range(KEYS):
            pipe.set(f"{MODE}:pyp:{n}", n)
            pipe.incr(f"{MODE}:pyp:{n}")
        replies = pipe.execute()
    assert replies[1::2] == list(range(1, KEYS + 1)), replies


def one_slot(r):
    """What cannot be split works where a tag puts the keys into one slot."""
    assert r.mset({"{tag}:a": 1, "{tag}:b": 2})
    r.delete("{tag}:c")
    assert r.mget("{tag}:a", "{tag}:b", "{tag}:c") == ["1", "2", None]
    assert r.rename("{tag}:a", "{tag}:c")
    assert r.get("{tag}:c") == "1"


def whole(r):
    """A client of clusters adds up what each node says of the slots that it owns: copies must not count."""
    if MODE != "cluster":
        return
    before = r.dbsize(target_nodes=redis.RedisCluster.PRIMARIES)
    names = {f"{MODE}:pyw:{n}" for n in range(KEYS)}
    for name in names:
        r.set(name, 1)
    assert r.dbsize(target_nodes=redis.RedisCluster.PRIMARIES) - before == KEYS
    found = list(r.scan_iter(match=f"{MODE}:pyw:*", count=100))
    assert sorted(found) == sorted(names), len(found)
    assert r.delete(*names) == KEYS


def nodes(r):
    if MODE == "cluster":
        primaries = r.get_primaries()
        assert len(primaries) >= 3, r.get_nodes()
        assert r.cluster_info()["cluster_state"] == "ok"
    else:
        assert r.ping()
        assert r.info("server")["redis_version"].startswith("7.")


def main():
    with client() as r:
        for test in (strings, hashes, many_keys, pipelines, one_slot, whole, nodes):
            test(r)
            print(f"ok: {test.__name__}, {MODE}")


main()
