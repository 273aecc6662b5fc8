// The model of the log, as its readers define it.
'use strict'
const mongoose = require('mongoose')

const schema = new mongoose.Schema(
  { user_id: Number, timestamp: Number, uuid: String, status: String },
  { strict: false, versionKey: false, collection: process.env.TICKETLOG_STORE__COLLECTION || 'bytemark_tickets_log' }
)

module.exports = { mongoose, Log: mongoose.model('bytemark_tickets_log', schema), schema }
