// Waits until the log has as many different uuids as the first argument says, and checks that each is there once.
'use strict'
const assert = require('node:assert/strict')
const { mongoose, Log } = require('./model')

async function main () {
  const expected = Number(process.argv[2])
  await mongoose.connect(process.env.TICKETLOG_STORE__URI, { dbName: process.env.TICKETLOG_STORE__DATABASE })
  const deadline = Date.now() + 60_000
  let uuids
  do {
    uuids = (await Log.distinct('uuid')).length
  } while (uuids < expected && Date.now() < deadline)
  assert.deepEqual([uuids, await Log.countDocuments()], [expected, expected])
  await mongoose.disconnect()
}

main().catch((error) => { console.error(error); process.exit(1) })
