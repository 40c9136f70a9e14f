import { AMQPSession } from "@cloudamqp/amqp-client"
import { confirmed, queue, url } from "./confirmed.mjs"

const session = await AMQPSession.connect(url, { tlsOptions: { noDelay: true } })
const target = await session.queue(queue, { passive: true })
await target.publish("hello", { deliveryMode: 1 })
confirmed()
