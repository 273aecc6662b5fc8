// Bodies that a Node publisher may send, from plain to odd. Each gets a `row`, by which it is found.
'use strict'

const now = Number(process.env.CORPUS_NOW)

const values = [5, -1, 1.5, 0, 2147483648, 9007199254740991, '12345', ' 12 ', '0x1f', '1e3', '1.50', '', 'abc', '0b11', '-7', '+7', '.5', 'Infinity',
  '2024-01-01', true, false, null, [5], [], {}, { a: 1 }, { _id: 42 }, { _id: '43', a: 1 }, { _id: '' }, { _id: null }, { _id: true }, { _id: { _id: 1 } }, 'cut \ud83d', 'true', '１２', '\u00a012\ufeff', '1_000', '-0', '0x', 'NaN', '1e21', 1e21, 1e-7, 123456789012345680000]

const plain = [
  { user_id: 42, timestamp: now, uuid: 'c0ffee00-0000-4000-8000-000000000001', status: 'success', operation_type: 'purchase', ticket_details: { route: 'Red Line', fare: 2.75 } },
  { user_id: '43', timestamp: String(now), status: 'failed', error: { code: 'card_declined', retryable: true }, tags: ['a', 1, null, { b: [] }] },
  { user_id: 44, unicode: 'Überlandlinie 中央線 🎫 \u0000 \u2028', empty: {}, list: [], nil: null, deep: { a: { b: { c: [1, [2, [3]]] } } } },
  {}
]

module.exports = [
  ...plain,
  ...['user_id', 'timestamp', 'uuid', 'status'].flatMap((field) => values.map((value) => ({ [field]: value })))
].map((body, row) => ({ row, ...body }))
