#!/usr/bin/env python3
"""One key takes 30 % of all reads: what does each node spend, and how does that grow with the nodes?

    FOREBAY_BIN=target/release/forebay benches/hot_keys.py [--nodes 1,2,3] [--pipeline 1] [--connections 300] [--seconds 6] [--share 0.3]
                                                           [--clients plain|cluster] [--rounds 1] [--pinned]

Starts clusters of so many nodes on 127.80.0.x, with hot keys switched off and on, and prints a table in Markdown. Plain clients ask every
node alike; those that know the cluster send each part of a batch to its owner. The nodes share this machine with each other and with the
load, so the throughput says little; the processor time is the scheduler's account of each process. Pinned, all nodes are on one processor
and the load is on another, and none of them takes the processor from another when something comes for it (SCHED_BATCH, sched(7)): a node
has work waiting whenever it gets its turn, as in a cluster that is busy. For that there must be connections enough: with 24 at four nodes a
node is roused for nearly every request, and what is measured is the rousing.

The machine's own pace changes from second to second, so each round measures every row once and the table has the medians.
"""

import argparse
import binascii
import os
import random
import selectors
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

VALUE = b"v" * 64
REPLY = len(b"$64\r\n" + VALUE + b"\r\n")
KEYS = 10_000
HOT = b"key:hot"
BATCHES = 4_000
SLOTS = 16_384
OPEN, DIRECT = 6379, 6380
EVERY = os.sched_getaffinity(0)
FIRST, LAST = min(EVERY), max(EVERY)
COLUMNS = [
    ("reads/s", "{:,.0f}"),
    ("CPU µs per read", "{:.2f}"),
    ("forwarded", "{:.1%}"),
    ("from copies", "{:.1%}"),
    ("grants/s", "{:.0f}"),
    ("busiest node's share of the CPU", "{:.0%}"),
    ("reads per CPU second of the busiest", "{:,.0f}"),
]


def command(*args):
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(arg), arg) for arg in args)


class Node:
    def __init__(self, number, count, directory, hot, pinned):
        self.host = f"127.80.0.{number + 1}"
        seeds = [part for other in range(count) for part in ("--join", f"127.80.0.{other + 1}:8001")] if count > 1 else []
        arguments = ["node", "--bind", self.host, "--data-dir", f"{directory}/{number}", "--insecure", "--threads", "1"]
        arguments += ["--http-port", "off", "--metrics-port", "off", "--bootstrap-expect", str(count), *seeds]
        arguments += ["--hot-key-reads", "500" if hot else "0"]
        self.log = open(f"{directory}/{number}.log", "w")
        self.process = subprocess.Popen(
            [os.environ["FOREBAY_BIN"], *arguments], stdout=self.log, stderr=self.log, preexec_fn=self.pin if pinned else None
        )

    @staticmethod
    def pin():
        os.sched_setaffinity(0, {FIRST})
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

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


def owners(nodes):
    """The number of each slot's owner."""
    by_slot = [0] * SLOTS
    hosts = {node.host: number for number, node in enumerate(nodes)}
    for line in nodes[0].ask(b"CLUSTER", b"NODES").decode().splitlines():
        fields = line.split()
        if "master" not in fields[2]:
            continue
        for span in fields[8:]:
            first, _, last = span.partition("-")
            for slot in range(int(first), int(last or first) + 1):
                by_slot[slot] = hosts[fields[1].split(":")[0]]
    return by_slot


def tape(options, nodes, seed):
    """Batches: who is sent what, and how many replies come. Plain clients send all to one, which is theirs to choose."""
    draw = random.Random(seed)
    name = lambda: HOT if draw.random() < options.share else b"key:%d" % draw.randrange(KEYS)
    by_slot = owners(nodes) if options.clients == "cluster" and len(nodes) > 1 else None
    batches = []
    for _ in range(BATCHES):
        parts = {}
        for _ in range(options.pipeline):
            key = name()
            owner = by_slot[binascii.crc_hqx(key, 0) % SLOTS] if by_slot else None
            sent, count = parts.get(owner, (b"", 0))
            parts[owner] = (sent + command(b"GET", key), count + 1)
        batches.append([(owner, sent, count * REPLY) for owner, (sent, count) in parts.items()])
    return batches


class Client:
    """Sends a batch, and the next one when all replies have come."""

    def __init__(self, number, nodes, tapes, options, selector):
        home = number % len(nodes)
        numbers = {None: home} if options.clients == "plain" else {at: at for at in range(len(nodes))} | {None: 0}
        opened = {at: self.connect(nodes[at].host, OPEN if options.clients == "plain" else DIRECT) for at in set(numbers.values())}
        self.connections = {owner: opened[at] for owner, at in numbers.items()}
        for connection in opened.values():
            selector.register(connection, selectors.EVENT_READ, self)
        self.tape, self.at, self.left = tapes[number % len(tapes)], number * 37 % BATCHES, 0

    @staticmethod
    def connect(host, port):
        connection = socket.create_connection((host, port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def send(self):
        self.at = (self.at + 1) % BATCHES
        for owner, sent, expected in self.tape[self.at]:
            self.left += expected
            self.connections[owner].sendall(sent)

    def receive(self, connection):
        """Whether the batch is answered."""
        self.left -= len(connection.recv(1 << 16))
        assert self.left >= 0, "a reply is not the value"
        return self.left == 0


def load(nodes, options, seconds, tapes):
    """Reads answered, and the seconds that it took."""
    selector = selectors.DefaultSelector()
    clients = [Client(number, nodes, tapes, options, selector) for number in range(options.connections)]
    for client in clients:
        client.send()
    batches, began = 0, time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        for key, _ in selector.select(0.1):
            if key.data.receive(key.fileobj):
                batches += 1
                key.data.send()
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return batches * options.pipeline, now - began


def measure(count, hot, options):
    """One row: the figures of COLUMNS."""
    directory = tempfile.mkdtemp(prefix="hot-keys-")
    nodes = [Node(number, count, directory, hot, options.pinned) for number in range(count)]
    try:
        await_settled(nodes)
        fill(nodes[0])
        tapes = [tape(options, nodes, seed) for seed in range(4)]
        load(nodes, options, 2, tapes)
        names = ["forwarded_requests", "hot_copies_served", "hot_grants"]
        before = [[node.figure(name) for name in names] for node in nodes]
        spent = [node.processor_seconds() for node in nodes]
        reads, seconds = load(nodes, options, options.seconds, tapes)
        spent = [node.processor_seconds() - earlier for node, earlier in zip(nodes, spent)]
        after = [[node.figure(name) for name in names] for node in nodes]
        forwarded, copied, grants = (sum(now[at] - then[at] for now, then in zip(after, before)) for at in range(3))
        total, busiest = sum(spent), max(spent)
        return [
            reads / seconds,
            total / reads * 1e6,
            forwarded / reads,
            copied / reads,
            grants / seconds,
            busiest / total,
            reads / busiest,
        ]
    finally:
        for node in nodes:
            node.process.kill()
            node.process.wait()
        shutil.rmtree(directory)


def rows(options):
    return [(count, hot) for count in map(int, options.nodes.split(",")) for hot in ([False, True] if count > 1 else [False])]


def measure_rounds(options):
    """The medians of each row, and the ratio of its last figure to the first row's in the same round, of all rounds."""
    rounds = []
    for number in range(options.rounds):
        measured = {}
        for row in rows(options):
            measured[row] = measure(*row, options)
            print(f"round {number + 1}: {row[0]} nodes, hot keys {'on' if row[1] else 'off'}: {measured[row][-1]:,.0f}", file=sys.stderr)
        rounds.append(measured)
    first = rows(options)[0]
    for row in rows(options):
        figures = [statistics.median(one) for one in zip(*(measured[row] for measured in rounds))]
        yield row, figures, sorted(measured[row][-1] / measured[first][-1] for measured in rounds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", default="1,2,3")
    parser.add_argument("--pipeline", type=int, default=1)
    parser.add_argument("--connections", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--clients", choices=["plain", "cluster"], default="plain")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--pinned", action="store_true")
    options = parser.parse_args()
    if options.pinned:
        os.sched_setaffinity(0, {LAST})
    print(
        f"Pipeline {options.pipeline}, {options.connections} {options.clients} clients, {options.share:.0%} of the reads for one key"
        f"{', nodes on one processor and the load on another' if options.pinned else ''}.\n"
    )
    headings = ["nodes", "hot keys", *(heading for heading, _ in COLUMNS), "to the first row", "of each round"]
    print("| " + " | ".join(headings) + " |")
    print("| ---: | --- " + "| ---: " * (len(headings) - 2) + "|")
    for (count, hot), figures, ratios in measure_rounds(options):
        cells = [shape.format(figure) for (_, shape), figure in zip(COLUMNS, figures)]
        cells += [f"{statistics.median(ratios):.2f}", ", ".join(f"{ratio:.2f}" for ratio in ratios)]
        print("| " + " | ".join([str(count), "on" if hot else "off", *cells]) + " |", flush=True)


main()
