"""Publishes ticket events with pika so that none is lost: each is confirmed, or an exception says why not.

After a lost connection the same bytes are sent again; ticketlog stores them once. BlockingConnection waits for each
confirm, which is enough for some hundred events a second; publisher_aio_pika.py is twenty times faster.

usage: python3 publisher_pika.py [ROUTING_KEY] < events.ndjson      (one event a line; pip install pika)
environment: RABBITMQ_URL (amqps://user:password@host:5671/%2f), RABBITMQ_CA (file, if the CA is not a public one),
             EXCHANGE (bytemark.tickets), APP_ID (ticket-shop)
"""

import json
import os
import ssl
import sys
import time

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError, UnroutableError

PERMANENT = {403, 404}  # access refused, no such exchange: sending again does not help


class NotPublished(Exception):
    """No queue took the event."""


class Publisher:
    def __init__(self, url, ca=None, exchange="bytemark.tickets", app_id="ticket-shop"):
        self.parameters = pika.URLParameters(url)
        if url.startswith("amqps:"):
            context = ssl.create_default_context(cafile=ca)
            self.parameters.ssl_options = pika.SSLOptions(context, self.parameters.host)
        self.parameters.client_properties = {"connection_name": app_id}
        # Full memory or a full disk: RabbitMQ takes no more bytes. After five minutes the connection counts as lost.
        self.parameters.blocked_connection_timeout = 300
        self.exchange, self.app_id = exchange, app_id
        self.connection = self.channel = None

    def publish(self, routing_key, message_id, body):
        """Returns when RabbitMQ has confirmed the event; raises NotPublished if no queue took it."""
        properties = pika.BasicProperties(
            delivery_mode=2, content_type="application/json", message_id=message_id, app_id=self.app_id
        )
        pause = 0.1
        while True:
            try:
                if self.channel is None or not self.channel.is_open:
                    self.connect()
                self.channel.basic_publish(self.exchange, routing_key, body, properties, mandatory=True)
                return
            except UnroutableError as error:
                raise NotPublished("returned by RabbitMQ: no queue is bound for this routing key") from error
            except NackError as error:
                raise NotPublished("refused by RabbitMQ (a full queue?)") from error
            except (AMQPError, OSError) as error:
                if isinstance(error, ChannelClosedByBroker) and error.reply_code in PERMANENT:
                    raise NotPublished(error.reply_text) from error
                print(f"RabbitMQ: {error!r}; trying again", file=sys.stderr)
            time.sleep(pause)
            pause = min(pause * 2, 10)

    def connect(self):
        self.close()
        self.connection = pika.BlockingConnection(self.parameters)
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()

    def close(self):
        if self.connection is not None and self.connection.is_open:
            self.connection.close()


def main():
    publisher = Publisher(
        os.environ["RABBITMQ_URL"],
        os.environ.get("RABBITMQ_CA"),
        os.environ.get("EXCHANGE", "bytemark.tickets"),
        os.environ.get("APP_ID", "ticket-shop"),
    )
    routing_key = sys.argv[1] if len(sys.argv) > 1 else "ticket.purchase"
    confirmed = failed = 0
    for line in sys.stdin.buffer:
        body = line.rstrip(b"\n")
        uuid = json.loads(body)["uuid"]
        try:
            publisher.publish(routing_key, uuid, body)
            confirmed += 1
        except NotPublished as error:
            failed += 1
            print(f"not published: {uuid}: {error}", file=sys.stderr)
    publisher.close()
    print(json.dumps({"confirmed": confirmed, "failed": failed}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
