"""Publishes with pika and confirms: the example of the README. The last event is malformed."""
import json
import os
import time

import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["TICKETLOG_BROKER__URI"]))
channel = connection.channel()
channel.confirm_delivery()
for n in range(50):
    event = {"user_id": 7007, "timestamp": int(time.time() * 1000) + n, "uuid": f"python-{n}", "status": "success", "python": n}
    body = json.dumps(event).encode() if n < 49 else b"{'user_id': 7}"
    channel.basic_publish(
        exchange=os.environ["TICKETLOG_BROKER__EXCHANGE"],
        routing_key="ticket.activate",
        body=body,
        properties=pika.BasicProperties(delivery_mode=2, content_type="application/json", message_id=f"python-{n}"),
        mandatory=True,
    )
connection.close()
print("pika: 50 events published, one of them malformed")
