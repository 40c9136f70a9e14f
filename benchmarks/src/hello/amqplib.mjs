import amqplib from "amqplib"
import { confirmed, queue, url } from "./confirmed.mjs"

const connection = await amqplib.connect(url, { noDelay: true })
const channel = await connection.createConfirmChannel()
channel.sendToQueue(queue, Buffer.from("hello"))
await channel.waitForConfirms()
confirmed()
