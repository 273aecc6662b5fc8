// Reads the log with Mongoose, and compares every document with what Mongoose itself stores for the same body.
'use strict'
const assert = require('node:assert/strict')
const { mongoose, Log, schema } = require('./model')
const corpus = require('./corpus')

// By default Mongoose drops empty objects (minimize); the log keeps what was sent.
const options = { strict: false, versionKey: false, minimize: false, collection: 'expected' }
const Own = mongoose.model('expected', new mongoose.Schema(schema.obj, options))

// The document that Mongoose stores, or null if Mongoose rejects the body.
async function expected (event) {
  try {
    await new Own(event).save()
  } catch (error) {
    assert.equal(error.name, 'ValidationError')
    return null
  }
  return Own.collection.findOne({ row: event.row }, { projection: { _id: 0 } })
}

// An intended difference from Mongoose: infinite numbers are rejected.
const infinite = (event) => event.user_id === 'Infinity' || event.timestamp === 'Infinity'

async function main () {
  await mongoose.connect(process.env.TICKETLOG_STORE__URI, { dbName: process.env.TICKETLOG_STORE__DATABASE })
  let stored = 0
  let rejected = 0
  for (const event of corpus) {
    const found = await Log.collection.findOne({ row: event.row }, { projection: { _id: 0 } })
    const wanted = infinite(event) ? null : await expected(event)
    assert.deepEqual(found, wanted, JSON.stringify(event))
    if (found === null) { rejected++; continue }
    stored++
    const hydrated = await Log.findOne({ row: event.row })
    assert.ok(hydrated._id instanceof mongoose.Types.ObjectId)
    assert.equal(hydrated.validateSync(), undefined)
  }
  console.log(`Mongoose ${mongoose.version}: ${stored} documents equal what Mongoose stores, ${rejected} bodies rejected by both`)

  const day = await Log.find({ timestamp: { $gte: Date.now() - 86400000 } }).lean()
  const last = await Log.find({ user_id: 7007 }).sort({ timestamp: -1 }).limit(50).lean()
  const failed = await Log.find({ status: 'failed' }).lean()
  const one = await Log.find({ uuid: 'python-3' }).lean()
  assert.deepEqual([last.length, failed.length, one.length, last[0].python], [49, 1, 1, 48])
  assert.ok(day.length >= 50)
  for (const query of [{ user_id: 7007 }, { status: 'failed' }, { timestamp: { $gte: Date.now() - 86400000 } }, { uuid: 'python-3' }]) {
    const plan = JSON.stringify(await Log.find(query).sort('uuid' in query ? {} : { timestamp: -1 }).explain())
    assert.ok(plan.includes('IXSCAN') && !plan.includes('COLLSCAN') && !plan.includes('"stage":"SORT"'), plan)
  }
  console.log('Mongoose: the four queries of the readers return the expected documents, and use indexes')
  await mongoose.disconnect()
}

main().catch((error) => { console.error(error); process.exit(1) })
