"""Brokers that speak Kafka's protocol (librdkafka's mock cluster), and a producer for them.

Prints the brokers' addresses on one line. Then reads one JSON object a line and answers each with a line:
    {"topic": T, "partition": N, "value": TEXT or null, "compression": KIND, "times": N, "padding": BYTES}
`padding` is what every PAD in the value is replaced by, as so many letters.
"""

import json
import sys

from confluent_kafka import Producer

PATIENCE = 30


def main(count):
    cluster = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": int(count), "log_level": 0})
    found = cluster.list_topics(timeout=PATIENCE).brokers.values()
    addresses = ",".join(f"{broker.host}:{broker.port}" for broker in found)
    print(addresses, flush=True)
    producers = {}
    for line in sys.stdin:
        wanted = json.loads(line)
        kind = wanted.get("compression", "none")
        if kind not in producers:
            producers[kind] = Producer(
                {"bootstrap.servers": addresses, "compression.type": kind, "log_level": 0, "linger.ms": 5}
            )
        print(produce(producers[kind], wanted), flush=True)


def produce(producer, wanted):
    failed = []
    value = wanted["value"]
    if value is not None:
        value = value.replace("PAD", "x" * wanted.get("padding", 0)).encode()
    for _ in range(wanted.get("times", 1)):
        producer.produce(
            wanted["topic"],
            value=value,
            partition=wanted.get("partition", 0),
            on_delivery=lambda error, _: error and failed.append(str(error)),
        )
    left = producer.flush(PATIENCE)
    return "done" if not left and not failed else f"failed: {left} left, {failed[:3]}"


main(*sys.argv[1:])
