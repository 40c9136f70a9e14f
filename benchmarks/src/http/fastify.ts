/** The order service with Fastify: a schema for the body, one for the answer, and AMQP by amqplib or by effect-amqp. */
import { Amqp, AmqpChannel, type AmqpError, AmqpPublisher } from "@effect-amqp/core"
import { Effect, Layer, ManagedRuntime, References, type Scope } from "effect"
import Fastify, { type FastifyReply } from "fastify"
import type { ConfirmChannel } from "amqplib"
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
  accept: (id: string, content: Buffer, reply: FastifyReply) => Promise<unknown> | void,
  close: () => Promise<unknown>
): Promise<Prepared> => {
  const app = Fastify()
  app.post<{ Body: Order }>("/orders", { schema }, async (request, reply) => {
    const id = randomUUID()
    await accept(id, Buffer.from(JSON.stringify({ id, ...request.body })), reply)
    reply.code(202)
    return { id }
  })
  const address = await app.listen({ host: "127.0.0.1", port: 0 })
  return loaded(`${address}/orders`, setting, async () => {
    await app.close()
    await close()
  })
}

const properties = (messageId: string) => ({ persistent: false, messageId, contentType: "application/json" })

const publish = (channel: ConfirmChannel, queue: string, id: string, content: Buffer) =>
  new Promise<void>((resolve, reject) => {
    channel.publish("", queue, content, properties(id), (error) => (error === null ? resolve() : reject(error)))
  })

/** amqplib, with one confirm channel that all requests share. */
export const publisher: Peer = {
  http: async (setting) => {
    const connection = await connect(setting)
    const channel = await connection.createConfirmChannel()
    return serve(
      setting,
      (id, content) => publish(channel, setting.queue, id, content),
      () => connection.close()
    )
  }
}

/** amqplib, with a confirm channel that each request opens and closes. */
export const opener: Peer = {
  http: async (setting) => {
    const connection = await connect(setting)
    const accept = async (id: string, content: Buffer) => {
      const channel = await connection.createConfirmChannel()
      try {
        await publish(channel, setting.queue, id, content)
      } finally {
        await channel.close()
      }
    }
    return serve(setting, accept, () => connection.close())
  }
}

type Send = (
  queue: string,
  id: string,
  content: Buffer
) => Effect.Effect<unknown, AmqpError.AmqpError, Amqp.Amqp | Scope.Scope>

/** effect-amqp, as docs/without-effect.md runs it: a scope and an abort signal per request. */
const onRuntime = (send: Send): Peer => ({
  http: async (setting) => {
    const quiet = Layer.succeed(References.MinimumLogLevel, "Warn")
    const runtime = ManagedRuntime.make(Layer.provideMerge(Amqp.layer({ url: setting.url }), quiet))
    await runtime.context()
    const accept = (id: string, content: Buffer, reply: FastifyReply) => {
      const controller = new AbortController()
      reply.raw.once("close", () => controller.abort())
      return runtime.runPromise(Effect.scoped(send(setting.queue, id, content)), { signal: controller.signal })
    }
    return serve(setting, accept, () => runtime.dispose())
  }
})

const outgoing = (routingKey: string, id: string, content: Buffer) => ({ routingKey, content, ...properties(id) })

/** Through the publisher. */
export const effectPublisher: Peer = onRuntime((queue, id, content) =>
  AmqpPublisher.publish(outgoing(queue, id, content))
)

/** On a channel of the pool, borrowed for the request. */
export const effectBorrower: Peer = onRuntime((queue, id, content) =>
  AmqpChannel.useConfirm((channel) => channel.publish(outgoing(queue, id, content)))
)

export const plain: Peer = {
  http: (setting) =>
    serve(
      setting,
      () => undefined,
      () => Promise.resolve()
    )
}
