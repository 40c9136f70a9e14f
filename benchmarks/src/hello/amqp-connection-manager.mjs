import manager from "amqp-connection-manager"
import { confirmed, queue, url } from "./confirmed.mjs"

const connection = manager.connect([url], { connectionOptions: { noDelay: true } })
const channel = connection.createChannel()
await channel.sendToQueue(queue, Buffer.from("hello"))
confirmed()
