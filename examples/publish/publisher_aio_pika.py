"""Publishes ticket events with aio-pika so that none is lost: each is confirmed, or an exception says why not.

After a lost connection the same bytes are sent again; ticketlog stores them once. Up to 200 events wait for their
confirms at the same time.

usage: python3 publisher_aio_pika.py [ROUTING_KEY] < events.ndjson      (one event a line; pip install aio-pika)
environment: RABBITMQ_URL (amqps://user:password@host:5671/%2f), RABBITMQ_CA (file, if the CA is not a public one),
             EXCHANGE (bytemark.tickets), APP_ID (ticket-shop)
"""

import asyncio
import itertools
import json
import os
import ssl
import sys

import aio_pika
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, ChannelNotFoundEntity, DeliveryError, PublishError
from aiormq.exceptions import ChannelAccessRefused

WINDOW = 200  # Waiting for each confirm is twenty times slower; without a limit, an outage fills the memory.


class NotPublished(Exception):
    """No queue took the event."""


class Publisher:
    def __init__(self, url, ca=None, exchange="bytemark.tickets", app_id="ticket-shop"):
        self.url, self.exchange, self.app_id = url, exchange, app_id
        self.context = ssl.create_default_context(cafile=ca) if url.startswith("amqps:") else None
        self.window = asyncio.Semaphore(WINDOW)
        self.connecting = asyncio.Lock()
        self.connection = self.channel = None

    async def publish(self, routing_key, message_id, body):
        """Returns when RabbitMQ has confirmed the event; raises NotPublished if no queue took it.

        A message id is not used for two events at the same time: a returned message is recognized by it.
        """
        message = aio_pika.Message(
            body,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            content_type="application/json",
            message_id=message_id,
            app_id=self.app_id,
        )
        async with self.window:
            while not await self.try_to_publish(message, routing_key):
                pass

    async def try_to_publish(self, message, routing_key):
        try:
            # While RabbitMQ blocks publishers (full memory, full disk), confirms do not come, and callers wait here.
            await (await self.open_exchange()).publish(message, routing_key, mandatory=True)
            return True
        except PublishError as error:
            raise NotPublished("returned by RabbitMQ: no queue is bound for this routing key") from error
        except DeliveryError as error:
            raise NotPublished("refused by RabbitMQ (a full queue?)") from error
        except (ChannelAccessRefused, ChannelNotFoundEntity) as error:
            raise NotPublished(str(error)) from error
        except CONNECTION_EXCEPTIONS:
            return False

    async def open_exchange(self):
        pause = 0.1
        async with self.connecting:
            while True:
                try:
                    if self.connection is None:
                        await self.connect()
                    if self.channel.is_closed:
                        self.channel = await self.connection.channel(publisher_confirms=True, on_return_raises=True)
                    return await self.channel.get_exchange(self.exchange, ensure=False)
                except CONNECTION_EXCEPTIONS as error:
                    print(f"RabbitMQ: {error!r}; trying again", file=sys.stderr)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 10)

    async def connect(self):
        name = {"connection_name": self.app_id}
        self.connection = await aio_pika.connect(self.url, ssl_context=self.context, client_properties=name)
        self.connection.close_callbacks.add(self.forget)  # `is_closed` is not set by a lost connection
        self.channel = await self.connection.channel(publisher_confirms=True, on_return_raises=True)

    def forget(self, connection, _error):
        if connection is self.connection:
            self.connection = None

    async def close(self):
        if self.connection is not None:
            await self.connection.close()


async def main():
    publisher = Publisher(
        os.environ["RABBITMQ_URL"],
        os.environ.get("RABBITMQ_CA"),
        os.environ.get("EXCHANGE", "bytemark.tickets"),
        os.environ.get("APP_ID", "ticket-shop"),
    )
    routing_key = sys.argv[1] if len(sys.argv) > 1 else "ticket.purchase"
    confirmed = failed = 0
    lines = (line.rstrip(b"\n") for line in sys.stdin.buffer)
    while bodies := list(itertools.islice(lines, WINDOW)):
        uuids = [json.loads(body)["uuid"] for body in bodies]
        published = [publisher.publish(routing_key, uuid, body) for uuid, body in zip(uuids, bodies)]
        for uuid, outcome in zip(uuids, await asyncio.gather(*published, return_exceptions=True)):
            if outcome is None:
                confirmed += 1
            elif isinstance(outcome, NotPublished):
                failed += 1
                print(f"not published: {uuid}: {outcome}", file=sys.stderr)
            else:
                raise outcome
    await publisher.close()
    print(json.dumps({"confirmed": confirmed, "failed": failed}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    asyncio.run(main())
