import { Connection } from "rabbitmq-client"
import { confirmed, queue, url } from "./confirmed.mjs"

const connection = new Connection({ url, noDelay: true })
const publisher = connection.createPublisher({ confirm: true })
await publisher.send(queue, Buffer.from("hello"))
confirmed()
