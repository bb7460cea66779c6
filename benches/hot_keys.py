#!/usr/bin/env python3
"""One key takes 30 % of all reads of plain clients, who ask every node alike: what does each node spend?

    FOREBAY_BIN=target/release/forebay benches/hot_keys.py [--nodes 1,2,3] [--pipeline 1] [--connections 24] [--seconds 6] [--share 0.3]

Starts clusters of so many nodes on 127.80.0.x, with hot keys switched off and on, and prints a table in Markdown. The nodes share this
machine with each other and with the load, so the throughput says little; the processor time is the scheduler's account of each process.
"""

import argparse
import os
import random
import selectors
import shutil
import socket
import subprocess
import tempfile
import time

VALUE = b"v" * 64
REPLY = len(b"$64\r\n" + VALUE + b"\r\n")
KEYS = 10_000
HOT = b"key:hot"
BATCHES = 4_000


def command(*args):
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(arg), arg) for arg in args)


class Node:
    def __init__(self, number, count, directory, hot):
        self.host = f"127.80.0.{number + 1}"
        seeds = [part for other in range(count) for part in ("--join", f"127.80.0.{other + 1}:8001")] if count > 1 else []
        arguments = ["node", "--bind", self.host, "--data-dir", f"{directory}/{number}", "--insecure", "--threads", "1"]
        arguments += ["--http-port", "off", "--metrics-port", "off", "--bootstrap-expect", str(count), *seeds]
        arguments += ["--hot-key-reads", "500" if hot else "0"]
        self.log = open(f"{directory}/{number}.log", "w")
        self.process = subprocess.Popen([os.environ["FOREBAY_BIN"], *arguments], stdout=self.log, stderr=self.log)

    def ask(self, *args):
        with socket.create_connection((self.host, 6379), timeout=10) as connection:
            connection.sendall(command(*args))
            received = b""
            while True:
                received += connection.recv(1 << 20)
                head, _, rest = received.partition(b"\r\n")
                if head[:1] != b"$":
                    return head
                if len(rest) >= int(head[1:]) + 2:
                    return rest[:-2]

    def figure(self, name):
        info = self.ask(b"INFO", b"forebay").decode()
        return sum(int(line.split(":")[1]) for line in info.splitlines() if line.startswith(name + ":"))

    def processor_seconds(self):
        total = 0
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{thread}/schedstat") as account:
                total += int(account.read().split()[0])
        return total / 1e9


def await_settled(nodes):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if all(node.ask(b"SET", b"probe", b"1") == b"+OK" for node in nodes):
                time.sleep(3)
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit("the nodes do not come to serve")


def fill(node):
    with socket.create_connection((node.host, 6379)) as connection:
        names = [HOT] + [b"key:%d" % number for number in range(KEYS)]
        connection.sendall(b"".join(command(b"SET", name, VALUE) for name in names))
        left = len(names) * len(b"+OK\r\n")
        while left:
            left -= len(connection.recv(1 << 20))


def tape(options, seed):
    draw = random.Random(seed)
    name = lambda: HOT if draw.random() < options.share else b"key:%d" % draw.randrange(KEYS)
    return [b"".join(command(b"GET", name()) for _ in range(options.pipeline)) for _ in range(BATCHES)]


def load(nodes, options, seconds, tapes):
    """Reads answered, and the seconds that it took."""
    selector = selectors.DefaultSelector()
    expected = REPLY * options.pipeline
    for number in range(options.connections):
        connection = socket.create_connection((nodes[number % len(nodes)].host, 6379))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        state = [tapes[number % len(tapes)], number * 37 % BATCHES, expected]
        selector.register(connection, selectors.EVENT_READ, state)
        connection.sendall(state[0][state[1]])
    batches, began = 0, time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        for key, _ in selector.select(0.1):
            connection, state = key.fileobj, key.data
            state[2] -= len(connection.recv(1 << 16))
            if state[2] <= 0:
                assert state[2] == 0, "a reply is not the value"
                batches += 1
                state[1] = (state[1] + 1) % BATCHES
                state[2] = expected
                connection.sendall(state[0][state[1]])
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return batches * options.pipeline, now - began


def measure(count, hot, options, tapes):
    directory = tempfile.mkdtemp(prefix="hot-keys-")
    nodes = [Node(number, count, directory, hot) for number in range(count)]
    try:
        await_settled(nodes)
        fill(nodes[0])
        load(nodes, options, 2, tapes)
        names = ["forwarded_requests", "hot_copies_served", "hot_grants"]
        before = [[node.figure(name) for name in names] for node in nodes]
        spent = [node.processor_seconds() for node in nodes]
        reads, seconds = load(nodes, options, options.seconds, tapes)
        spent = [node.processor_seconds() - earlier for node, earlier in zip(nodes, spent)]
        after = [[node.figure(name) for name in names] for node in nodes]
        forwarded, copied, grants = (sum(now[at] - then[at] for now, then in zip(after, before)) for at in range(3))
        busiest = max(spent)
        print(
            f"| {count} | {'on' if hot else 'off'} | {reads / seconds:,.0f} | {sum(spent) / reads * 1e6:.2f} | {forwarded / reads:.1%} "
            f"| {copied / reads:.1%} | {grants / seconds:.0f} | {busiest / sum(spent):.0%} | {reads / busiest:,.0f} |",
            flush=True,
        )
    finally:
        for node in nodes:
            node.process.kill()
            node.process.wait()
        shutil.rmtree(directory)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", default="1,2,3")
    parser.add_argument("--pipeline", type=int, default=1)
    parser.add_argument("--connections", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--share", type=float, default=0.3)
    options = parser.parse_args()
    tapes = [tape(options, seed) for seed in range(4)]
    print(f"Pipeline {options.pipeline}, {options.connections} connections, {options.share:.0%} of the reads for one key.\n")
    print(
        "| nodes | hot keys | reads/s | CPU µs per read | forwarded | from copies | grants/s | busiest node's share of the CPU "
        "| reads per CPU second of the busiest |"
    )
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for count in map(int, options.nodes.split(",")):
        for hot in [False, True] if count > 1 else [False]:
            measure(count, hot, options, tapes)


main()
