// Publishes the corpus with amqplib and confirms: the example of the README, in a loop.
'use strict'
const amqp = require('amqplib')
const corpus = require('./corpus')

async function main () {
  const connection = await amqp.connect(process.env.TICKETLOG_BROKER__URI)
  const channel = await connection.createConfirmChannel()
  for (const event of corpus) {
    channel.publish(process.env.TICKETLOG_BROKER__EXCHANGE, 'ticket.purchase', Buffer.from(JSON.stringify(event)), {
      persistent: true,
      contentType: 'application/json',
      messageId: `node-${event.row}`,
      timestamp: Math.floor(Date.now() / 1000)
    })
  }
  await channel.waitForConfirms()
  await connection.close()
  console.log(`amqplib: ${corpus.length} events published`)
}

main().catch((error) => { console.error(error); process.exit(1) })
