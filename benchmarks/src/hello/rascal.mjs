import rascal from "rascal"
import { confirmed, queue, url } from "./confirmed.mjs"

const vhost = decodeURIComponent(new URL(url).pathname.slice(1)) || "/"
const broker = await rascal.BrokerAsPromised.create(
  rascal.withDefaultConfig({
    vhosts: {
      [vhost]: {
        connection: { url, socketOptions: { noDelay: true } },
        queues: { [queue]: { assert: false, check: true } },
        publications: { hello: { queue, confirm: true, options: { persistent: false, mandatory: false } } }
      }
    }
  })
)
const publication = await broker.publish("hello", Buffer.from("hello"))
publication.on("success", confirmed)
