// Publishes two events with amqplib under OpenTelemetry's instrumentation, which writes the trace context into the headers and exports
// the publisher's spans: one event that is stored, and one that is rejected.
'use strict'
const { NodeTracerProvider, SimpleSpanProcessor } = require('@opentelemetry/sdk-trace-node')
const { OTLPTraceExporter } = require('@opentelemetry/exporter-trace-otlp-proto')
const { registerInstrumentations } = require('@opentelemetry/instrumentation')
const { AmqplibInstrumentation } = require('@opentelemetry/instrumentation-amqplib')

const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(new OTLPTraceExporter())] })
provider.register()
registerInstrumentations({ instrumentations: [new AmqplibInstrumentation()] })
const amqp = require('amqplib')

async function main () {
  const connection = await amqp.connect(process.env.TICKETLOG_BROKER__URI)
  const channel = await connection.createConfirmChannel()
  for (const event of [{ user_id: 42, status: 'traced' }, { user_id: 'nobody' }]) {
    channel.publish(process.env.TICKETLOG_BROKER__EXCHANGE, 'ticket.purchase', Buffer.from(JSON.stringify(event)))
  }
  await channel.waitForConfirms()
  await connection.close()
  await provider.shutdown()
}

main().catch((error) => { console.error(error); process.exit(1) })
