// The bare pipes in Node, only for comparison: amqplib, batches, two inserts in flight, cumulative acks in order. They have no
// identity, no limits, no outcome for each document, no retries.
// usage: worker.js driver|mongoose QUEUE DATABASE COLLECTION COUNT; prints `done`, and waits until standard input ends.
'use strict'
const amqp = require('amqplib')

const BATCH = 1000
const IN_FLIGHT = 2

async function driver (database, collection) {
  const { MongoClient } = require('mongodb')
  const client = await new MongoClient(process.env.TICKETLOG_STORE__URI).connect()
  const target = client.db(database).collection(collection, { writeConcern: { w: 'majority', j: true } })
  return { insert: (events) => target.insertMany(events, { ordered: false }), close: () => client.close() }
}

async function model (database, collection) {
  const mongoose = require('mongoose')
  await mongoose.connect(process.env.TICKETLOG_STORE__URI, { dbName: database })
  const Log = mongoose.model(collection, new mongoose.Schema(
    { user_id: Number, timestamp: Number, uuid: String, status: String },
    { strict: false, collection, versionKey: false, autoIndex: false, writeConcern: { w: 'majority', j: true } }))
  return { insert: (events) => Log.insertMany(events, { ordered: false }), close: () => mongoose.disconnect() }
}

async function main () {
  const [kind, queue, database, collection, count] = process.argv.slice(2)
  const store = await (kind === 'mongoose' ? model : driver)(database, collection)
  const connection = await amqp.connect(process.env.TICKETLOG_BROKER__URI)
  const channel = await connection.createChannel()
  await channel.prefetch(BATCH * (IN_FLIGHT + 2))
  let events = []
  let taken = 0
  let writing = 0
  let acked = Promise.resolve()
  const waiting = []
  const flush = (last) => {
    const batch = events
    events = []
    waiting.push({ batch, last })
    while (writing < IN_FLIGHT && waiting.length > 0) start(waiting.shift())
  }
  const start = ({ batch, last }) => {
    writing++
    const stored = store.insert(batch).then(() => {
      writing--
      if (waiting.length > 0) start(waiting.shift())
    })
    acked = Promise.all([acked, stored]).then(() => channel.ack(last, true))
  }
  await new Promise((resolve, reject) => {
    channel.consume(queue, (message) => {
      events.push(JSON.parse(message.content))
      taken++
      if (events.length === BATCH || taken === Number(count)) flush(message)
      if (taken === Number(count)) resolve()
    }).catch(reject)
  })
  while (writing > 0 || waiting.length > 0) await new Promise((resolve) => setTimeout(resolve, 1))
  await acked
  console.log('done')
  await new Promise((resolve) => process.stdin.on('end', resolve).resume())
  await connection.close()
  await store.close()
}

main().catch((error) => { console.error(error); process.exit(1) })
