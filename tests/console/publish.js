// Publishes events with twelve faults, as many publishers make them, hostile texts among them. usage: publish.js COUNT
"use strict";
const amqp = require("amqplib");

const faults = [
  (n) => [`{"user_id":"n${n}","status":"success"}`],
  (n) => [`{'user_id':${n}}`],
  (n) => [`{"user_id":${n},"amount":NaN}`],
  (n) => [`[{"user_id":${n},"status":"in a list"}]`],
  () => [""],
  (n) => [Buffer.from([0xff, 0xfe, 0x00, n & 255])],
  (n) => [`{"_id":"short","user_id":${n}}`],
  (n) => [`{"user_id":${n},"timestamp":"yesterday"}`],
  (n) => [`{"user_id":${n}}`, { contentEncoding: "snappy" }],
  (n) => [`{"x":"<script>window.harmed=1</script><img src=x onerror=window.harmed=2>","user_id":"<b>${n}</b>"}`, {
    appId: "<script>window.harmed=3</script>", messageId: `"><svg onload=window.harmed=4>${n}`, headers: { "x-<i>": "<script>" },
  }],
  () => ['{"a":'.repeat(70) + "1" + "}".repeat(70)],
  (n) => [`{"user_id":"7${n}","status":"cut off`],
];

(async () => {
  const count = Number(process.argv[2]);
  const connection = await amqp.connect(process.env.TICKETLOG_BROKER__URI);
  const channel = await connection.createConfirmChannel();
  for (let n = 0; n < count; n += 1) {
    const [body, properties] = faults[n % faults.length](n);
    const key = n % faults.length === 9 ? "ticket.<script>window.harmed=5</script>" : "ticket.purchase";
    channel.publish(process.env.TICKETLOG_BROKER__EXCHANGE, key, Buffer.from(body), {
      persistent: true, appId: ["shop", "gate", "kiosk"][n % 3], messageId: `m-${n}`, ...properties,
    });
  }
  await channel.waitForConfirms();
  await connection.close();
})().catch((error) => { console.error(error); process.exit(1); });
