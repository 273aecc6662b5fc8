"""The bare pipe in Python, only for comparison: pika, batches, one insert at a time, cumulative acks.

usage: worker.py QUEUE DATABASE COLLECTION COUNT; prints `done`, and waits until standard input ends.
"""

import json
import os
import sys

import pika
import pymongo

BATCH = 1000


def main() -> None:
    queue, database, collection, count = sys.argv[1:]
    client = pymongo.MongoClient(os.environ["TICKETLOG_STORE__URI"])
    concern = pymongo.WriteConcern(w="majority", j=True)
    target = client[database].get_collection(collection, write_concern=concern)
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["TICKETLOG_BROKER__URI"]))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=2 * BATCH)
    events, taken = [], 0
    for method, _, body in channel.consume(queue):
        events.append(json.loads(body))
        taken += 1
        if len(events) == BATCH or taken == int(count):
            target.insert_many(events, ordered=False)
            channel.basic_ack(method.delivery_tag, multiple=True)
            events = []
        if taken == int(count):
            break
    connection.process_data_events(0)
    print("done", flush=True)
    sys.stdin.read()
    connection.close()


main()
