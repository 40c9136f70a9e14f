/**
 * An order service on Fastify, for applications that are not written in Effect: a runtime holds AMQP, and each request
 * runs one effect on it.
 *
 * - `POST /orders` publishes an order, and answers 202 when a queue has it.
 * - `GET /orders` counts the orders that wait in the queue, on a channel that it borrows for the request.
 * - `GET /health/live` and `GET /health/ready` are for an orchestrator.
 *
 * A consumer ships the orders in the same process. docs/without-effect.md explains each part.
 *
 * Run it with `npm start -- fastify`. Ctrl-C stops it.
 */
import { type Amqp, AmqpChannel, AmqpError, AmqpEvent, AmqpTopology } from "@effect-amqp/core"
import { AmqpHealth, AmqpHttpError } from "@effect-amqp/http"
import { Console, Effect, Layer, ManagedRuntime, Schema, type Scope } from "effect"
import { HttpServerResponse } from "effect/http"
import Fastify, { type FastifyInstance, type FastifyReply } from "fastify"
import * as ExampleBroker from "./support/ExampleBroker.ts"

// --- AMQP --------------------------------------------------------------------------------------------------------------

const queue = "fastify-orders"

const OrderPlaced = AmqpEvent.make("OrderPlaced", {
  schema: Schema.Struct({ id: Schema.String, product: Schema.String, quantity: Schema.Int }),
  routingKey: queue
})

/** Declares the queue, and declares it again if it is lost. */
export const OrdersQueue: Layer.Layer<never, AmqpError.AmqpError, Amqp.Amqp> = AmqpTopology.layer(
  AmqpTopology.make(AmqpTopology.queue(queue))
)

const Shipping = AmqpEvent.layerConsume(
  OrderPlaced,
  queue,
  (order) => Console.log(`Order ${order.id}: shipping ${order.quantity} of ${order.product}`),
  { whenFailed: "unready" }
)

// --- The server --------------------------------------------------------------------------------------------------------

const orderSchema = {
  type: "object",
  required: ["product", "quantity"],
  additionalProperties: false,
  properties: {
    product: { type: "string", minLength: 1 },
    quantity: { type: "integer", minimum: 1, maximum: 1000 }
  }
} as const

interface OrderBody {
  readonly product: string
  readonly quantity: number
}

/** The server, on a runtime that others dispose of. */
export const makeServer = (runtime: ManagedRuntime.ManagedRuntime<Amqp.Amqp, unknown>): FastifyInstance => {
  const app = Fastify({ logger: { level: "warn" } })

  /** Runs an effect for a request: in a scope of its own, and interrupted when the client hangs up. */
  const run = <A>(
    reply: FastifyReply,
    effect: Effect.Effect<A, AmqpError.AmqpError, Amqp.Amqp | Scope.Scope>
  ): Promise<A> => {
    const controller = new AbortController()
    // Not `request.signal`: it is aborted as soon as the body has been read, see docs/without-effect.md.
    reply.raw.once("close", () => controller.abort())
    return runtime.runPromise(Effect.scoped(effect), { signal: controller.signal })
  }

  app.setErrorHandler((error, request, reply) => {
    // The client has hung up, so its effect was interrupted, and there is no one to answer.
    if (reply.raw.destroyed) return reply.hijack()
    if (!AmqpError.isAmqpError(error)) return reply.send(error)
    // One line: the whole error has the stacks of its causes.
    request.log.warn({ reason: error.reason._tag }, error.message)
    return reply.send(HttpServerResponse.toWeb(AmqpHttpError.toResponse(error)))
  })

  app.post<{ Body: OrderBody }>("/orders", { schema: { body: orderSchema } }, async (request, reply) => {
    const order = { id: crypto.randomUUID(), ...request.body }
    // Completes when the broker has confirmed the message, and fails if no queue receives it.
    await run(reply, AmqpEvent.publish(OrderPlaced, order, { properties: { messageId: order.id } }))
    return reply.code(202).send({ id: order.id })
  })

  app.get("/orders", async (_request, reply) => {
    const { messageCount } = await run(
      reply,
      AmqpChannel.use((channel) => channel.queueDeclarePassive(queue))
    )
    return { waiting: messageCount }
  })

  for (const name of ["live", "ready"] as const) {
    app.get(`/health/${name}`, async (_request, reply) => {
      const report = await runtime.runPromise(AmqpHealth.check())
      return reply
        .code(report[name] ? 200 : 503)
        .header("cache-control", "no-store")
        .send(report)
    })
  }

  return app
}

// --- The program -------------------------------------------------------------------------------------------------------

if (import.meta.main) {
  const runtime = ManagedRuntime.make(
    Shipping.pipe(
      Layer.provideMerge(OrdersQueue),
      // In an application: AmqpLive.
      Layer.provideMerge(ExampleBroker.layer)
    )
  )
  const app = makeServer(runtime)

  const stop = async () => {
    console.log("Stopping: finishing requests, then closing the connections ...")
    // A client that never finishes its request does not keep the process.
    setTimeout(() => app.server.closeAllConnections(), 5000).unref()
    await app.close()
    await runtime.dispose()
    console.log("Stopped.")
  }

  try {
    // Builds the layer, before the first request needs it.
    await runtime.context()
    const url = await app.listen({ host: "127.0.0.1", port: Number(process.env["PORT"] ?? 3000) })
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void stop())
    console.log(`
Fastify listens on ${url}.

  curl -i ${url}/orders --json '{"product":"tea","quantity":2}'
  curl -i ${url}/orders
  curl -i ${url}/health/ready

Ctrl-C stops it.
`)
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    process.exitCode = 1
    await runtime.dispose()
  }
}
