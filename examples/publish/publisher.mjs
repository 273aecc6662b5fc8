// Publishes ticket events with amqplib so that none is lost: each is confirmed, or its promise is rejected. After a lost
// connection the same bytes are sent again; ticketlog stores them once.
//
// usage: node publisher.mjs [ROUTING_KEY] < events.ndjson      (one event a line; npm install amqplib)
// environment: RABBITMQ_URL (amqps://user:password@host:5671/%2f), RABBITMQ_CA (file, if the CA is not a public one),
//              EXCHANGE (bytemark.tickets), APP_ID (ticket-shop)
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import amqp from 'amqplib'

const WINDOW = 200 // Waiting for each confirm is twenty times slower; without a limit, an outage fills the memory.
const PERMANENT = new Set([403, 404]) // access refused, no such exchange: sending again does not help

export class Publisher {
  #options
  #connection
  #channel // undefined while disconnected
  #unconfirmed = new Map() // by message id, in the order of publishing
  #waiting = [] // calls that wait for room in the window
  #closed = false

  constructor (options) {
    this.#options = options // url, ca, exchange, appId
  }

  async connect () {
    const { url, ca, appId } = this.#options
    const socket = { ca, timeout: 10_000, clientProperties: { connection_name: appId } }
    for (let pause = 100; !this.#closed; pause = Math.min(pause * 2, 10_000)) {
      try {
        this.#connection = await amqp.connect(url, socket)
        this.#connection.on('error', (error) => console.error(`RabbitMQ: ${error.message}`))
        // Full memory or a full disk: RabbitMQ takes no more bytes, confirms stop, and the window makes callers wait.
        this.#connection.on('blocked', (reason) => console.error(`RabbitMQ has blocked publishers: ${reason}`))
        const channel = await this.#connection.createConfirmChannel()
        channel.on('error', (error) => { if (PERMANENT.has(error.code)) this.#rejectAll(error) })
        // A message that no queue is bound for is returned first, and then confirmed like any other.
        channel.on('return', ({ properties, fields }) => {
          const entry = this.#unconfirmed.get(properties.messageId)
          if (entry) entry.returned = fields.replyText
        })
        channel.prependListener('close', () => this.#reconnect(channel))
        if (this.#closed) this.#connection.close().catch(() => {})
        this.#channel = channel
        for (const entry of this.#unconfirmed.values()) this.#send(entry)
        return
      } catch (error) {
        console.error(`RabbitMQ: ${error.message}; trying again`)
        this.#connection?.close().catch(() => {}) // not awaited: it never ends if RabbitMQ closed the connection
        await sleep(pause)
      }
    }
  }

  // Resolves when there is room for another event. Wait for it before each `publish`.
  async room () {
    while (this.#unconfirmed.size >= WINDOW) await new Promise((resolve) => this.#waiting.push(resolve))
  }

  // Resolves when RabbitMQ has confirmed the event; rejects if no queue took it. `body` is a Buffer. A message id is not
  // used for two events at the same time: a returned message is recognized by it.
  publish (routingKey, messageId, body) {
    const entry = { routingKey, messageId, body }
    const confirmed = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }))
    this.#unconfirmed.set(messageId, entry)
    if (this.#channel) this.#send(entry)
    return confirmed
  }

  close () {
    this.#closed = true
    this.#channel = undefined
    this.#connection.close().catch(() => {}) // It may be lost already.
  }

  #send (entry) {
    const channel = this.#channel
    const { exchange, appId } = this.#options
    const { routingKey, messageId, body } = entry
    entry.returned = undefined
    const properties = { persistent: true, mandatory: true, contentType: 'application/json', messageId, appId }
    channel.publish(exchange, routingKey, body, properties, (error) => {
      if (channel !== this.#channel) return // The connection was lost: the entry is sent again.
      if (error) this.#settle(entry, new Error('refused by RabbitMQ (a full queue?)'))
      else this.#settle(entry, entry.returned && new Error(`returned by RabbitMQ: ${entry.returned}`))
    })
  }

  #settle (entry, error) {
    this.#unconfirmed.delete(entry.messageId)
    if (error) entry.reject(error)
    else entry.resolve()
    this.#waiting.shift()?.()
  }

  #rejectAll (error) {
    for (const entry of [...this.#unconfirmed.values()]) this.#settle(entry, error)
  }

  async #reconnect (channel) {
    if (channel !== this.#channel) return
    this.#channel = undefined
    this.#connection.close().catch(() => {})
    await this.connect()
  }
}

async function main () {
  const ca = process.env.RABBITMQ_CA && [readFileSync(process.env.RABBITMQ_CA)]
  const { RABBITMQ_URL: url, EXCHANGE: exchange = 'bytemark.tickets', APP_ID: appId = 'ticket-shop' } = process.env
  const publisher = new Publisher({ url, ca, exchange, appId })
  await publisher.connect()
  let confirmed = 0
  let failed = 0
  const outcomes = []
  for await (const line of createInterface({ input: process.stdin })) {
    const { uuid } = JSON.parse(line)
    await publisher.room()
    const published = publisher.publish(process.argv[2] ?? 'ticket.purchase', uuid, Buffer.from(line))
    outcomes.push(published.then(() => confirmed++, (error) => {
      failed++
      console.error(`not published: ${uuid}: ${error.message}`)
    }))
  }
  await Promise.all(outcomes)
  publisher.close()
  console.log(JSON.stringify({ confirmed, failed }))
  process.exitCode = failed > 0 ? 1 : 0
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main()
