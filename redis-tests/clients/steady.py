"""redis-py with its default settings, while nodes come and go: `steady.py plain|cluster HOST PORT FILE`.

Reads, writes and counts until FILE is there. Prints what an application saw, and exits with 1 if that was any error or a wrong answer.
"""

import collections
import os
import sys
import threading
import time

import redis

MODE, HOST, PORT, FILE = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
THREADS = 8
REST = 0.003

faults = collections.Counter()
requests = collections.Counter()


def client():
    if MODE == "cluster":
        return redis.RedisCluster(host=HOST, port=PORT, decode_responses=True)
    return redis.Redis(host=HOST, port=PORT, decode_responses=True)


def expect(number, call, expected):
    try:
        answer = call()
        if answer != expected:
            faults[f"{answer!r}, not {expected!r}"] += 1
    except redis.RedisError as error:
        faults[f"{type(error).__name__}: {error}"] += 1
    requests[number] += 1


def run(r, number):
    name = f"{MODE}:py:{number}"
    count = 0
    while not os.path.exists(FILE):
        count += 1
        # An increment that is lost or made twice shows in all that follow.
        expect(number, lambda: r.incr(f"{name}:n"), count)
        expect(number, lambda: r.set(f"{name}:{count % 100}", count), True)
        expect(number, lambda: r.get(f"{name}:{count % 100}"), str(count))
        time.sleep(REST)


shared = client()
threads = [threading.Thread(target=run, args=(shared, number)) for number in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"redis-py {redis.__version__}, {MODE}: {sum(requests.values())} requests, {sum(faults.values())} faults")
for words, count in faults.most_common(5):
    print(f"    {count} × {words}")
sys.exit(1 if faults else 0)
