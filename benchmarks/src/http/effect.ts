/** The order service with Effect's HTTP server: a schema for the body, and AMQP by `AmqpHttp.layer`. */
import { Amqp, AmqpChannel, AmqpConfig, AmqpPublisher } from "@effect-amqp/core"
import { AmqpHttp } from "@effect-amqp/http"
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer, ManagedRuntime, References, Schema } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { createServer } from "node:http"
import type { Peer, Prepared, Setting } from "../peers/peer.ts"
import { loaded } from "./loaded.ts"

const Order = Schema.Struct({
  product: Schema.NonEmptyString,
  quantity: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 }))
})

const order = Effect.gen(function* () {
  const order = yield* HttpServerRequest.schemaBodyJson(Order, { errors: "all", onExcessProperty: "error" })
  const id = crypto.randomUUID()
  return { id, content: JSON.stringify({ id, ...order }) }
}).pipe(Effect.orDie)

const accepted = (id: string) => HttpServerResponse.jsonUnsafe({ id }, { status: 202 })

const outgoing = (queue: string, id: string, content: string) => ({
  routingKey: queue,
  persistent: false,
  messageId: id,
  contentType: "application/json",
  content
})

const serve = async (
  setting: Setting,
  routes: Layer.Layer<never, unknown, HttpRouter.HttpRouter>
): Promise<Prepared> => {
  const runtime = ManagedRuntime.make(
    HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
      Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" })),
      Layer.provide(Layer.succeed(References.MinimumLogLevel, "Warn"))
    )
  )
  const url = await runtime.runPromise(
    Effect.map(HttpServer.HttpServer, ({ address }) => HttpServer.formatAddress(address))
  )
  return loaded(`${url}/orders`, setting, () => runtime.dispose())
}

const amqp = ({ url }: Setting) => Layer.unwrap(Effect.map(AmqpConfig.fromUrl(url), Amqp.fromConfig))

/** Publishes with the publisher. */
export const publisher: Peer = {
  http: (setting) => {
    const route = Effect.gen(function* () {
      const { content, id } = yield* order
      yield* AmqpPublisher.publish(outgoing(setting.queue, id, content))
      return accepted(id)
    })
    return serve(
      setting,
      HttpRouter.add("POST", "/orders", route).pipe(Layer.provide(AmqpHttp.layer), Layer.provide(amqp(setting)))
    )
  }
}

/** Publishes on a channel of the pool, which is borrowed for the request. */
export const borrower: Peer = {
  http: (setting) => {
    const route = Effect.gen(function* () {
      const { content, id } = yield* order
      yield* AmqpChannel.useConfirm((channel) => channel.publish(outgoing(setting.queue, id, content)))
      return accepted(id)
    })
    return serve(
      setting,
      HttpRouter.add("POST", "/orders", route).pipe(Layer.provide(AmqpHttp.layer), Layer.provide(amqp(setting)))
    )
  }
}

export const plain: Peer = {
  http: (setting) =>
    serve(
      setting,
      HttpRouter.add(
        "POST",
        "/orders",
        Effect.map(order, ({ id }) => accepted(id))
      )
    )
}
