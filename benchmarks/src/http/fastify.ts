/** The order service with Fastify: a schema for the body, one for the answer, and one confirm channel of amqplib. */
import Fastify from "fastify"
import { randomUUID } from "node:crypto"
import { connect } from "../peers/amqplib.ts"
import type { Peer, Prepared, Setting } from "../peers/peer.ts"
import { loaded } from "./loaded.ts"

interface Order {
  readonly product: string
  readonly quantity: number
}

const schema = {
  body: {
    type: "object",
    required: ["product", "quantity"],
    additionalProperties: false,
    properties: {
      product: { type: "string", minLength: 1 },
      quantity: { type: "integer", minimum: 1, maximum: 1000 }
    }
  },
  response: { 202: { type: "object", properties: { id: { type: "string" } } } }
}

const serve = async (
  setting: Setting,
  accept: (id: string, content: Buffer) => Promise<void> | void,
  close: () => Promise<unknown>
): Promise<Prepared> => {
  const app = Fastify()
  app.post<{ Body: Order }>("/orders", { schema }, async (request, reply) => {
    const id = randomUUID()
    await accept(id, Buffer.from(JSON.stringify({ id, ...request.body })))
    reply.code(202)
    return { id }
  })
  const address = await app.listen({ host: "127.0.0.1", port: 0 })
  return loaded(`${address}/orders`, setting, async () => {
    await app.close()
    await close()
  })
}

export const publisher: Peer = {
  http: async (setting) => {
    const connection = await connect(setting)
    const channel = await connection.createConfirmChannel()
    const accept = (messageId: string, content: Buffer) =>
      new Promise<void>((resolve, reject) => {
        const options = { persistent: false, messageId, contentType: "application/json" }
        channel.publish("", setting.queue, content, options, (error) => (error === null ? resolve() : reject(error)))
      })
    return serve(setting, accept, () => connection.close())
  }
}

export const plain: Peer = {
  http: (setting) =>
    serve(
      setting,
      () => undefined,
      () => Promise.resolve()
    )
}
