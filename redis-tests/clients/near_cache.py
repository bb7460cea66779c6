"""redis-py with its client-side cache: `near_cache.py HOST PORT KEY`. Reads KEY again and again, whose values are the times at which they were
written, in seconds, until it is `over`; tells how long after that each new value was seen. Prints what failed and exits with 1."""

import sys
import time

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

HOST, PORT, KEY = sys.argv[1], int(sys.argv[2]), sys.argv[3]
PATIENCE = 120

# redis-py goes by the version that a server tells, and wants 7.4. Forebay tells the level of commands that it has, which is 7.2; what the cache
# needs is in Redis since 6.
CacheProxyConnection.MIN_ALLOWED_VERSION = "7.2.0"

r = redis.Redis(host=HOST, port=PORT, protocol=3, cache_config=CacheConfig(), decode_responses=True)
seen, reads, last = [], 0, None
deadline = time.time() + PATIENCE
while last != "over":
    value = r.get(KEY)
    now = time.time()
    reads += 1
    assert now < deadline, f"{KEY} is still {value}"
    if value == last:
        continue
    if value not in ("over", "begin"):
        assert last in (None, "begin") or float(value) > float(last), f"{value} after {last}"
        seen.append(now - float(value))
    last = value
assert seen, "no change was seen"
seen.sort()
at = lambda share: 1000 * seen[min(len(seen) - 1, int(len(seen) * share))]
print(f"changes {len(seen)} reads {reads} p50 {at(0.5):.2f} ms p99 {at(0.99):.2f} ms most {at(1):.2f} ms")
