/**
 * A service for the tests, in its own process. `POST /messages/{id}` publishes the id to the queue `QUEUE`, and answers
 * when the broker has confirmed it. It prints its address. `GRACEFUL=no` disables the library's graceful shutdown.
 */
import { AmqpChannel, AmqpLive, AmqpPublisher } from "@effect-amqp/core"
import { AmqpHttp, AmqpHttpServer } from "@effect-amqp/http"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Cause, Config, Console, Effect, Exit, Layer } from "effect"
import { HttpRouter, HttpServer, HttpServerResponse } from "effect/http"
import { createServer } from "node:http"

const routes = HttpRouter.use((router) =>
  Effect.gen(function* () {
    const queue = yield* Effect.orDie(Config.String("QUEUE"))
    const post = Effect.gen(function* () {
      const { id = "" } = yield* HttpRouter.params
      // The request borrows a channel too, which must return to the pool.
      yield* AmqpChannel.use((channel) => channel.queueDeclare(queue, { durable: true }))
      yield* AmqpPublisher.publish({ routingKey: queue, content: id }, { mandatory: true })
      return HttpServerResponse.empty({ status: 202 })
    })
    yield* router.add("POST", "/messages/:id", post)
  })
).pipe(Layer.provide(AmqpHttp.layer))

const server = NodeHttpServer.layerServer(createServer, {
  host: "127.0.0.1",
  port: 0,
  gracefulShutdownTimeout: "3 seconds"
})

const announcement = Layer.effectDiscard(
  Effect.flatMap(HttpServer.HttpServer, ({ address }) =>
    Console.log(`listening on ${HttpServer.formatAddress(address)}`)
  )
)

announcement.pipe(
  Layer.provide(HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true })),
  Layer.provide(process.env["GRACEFUL"] === "no" ? server : AmqpHttpServer.graceful()(server)),
  Layer.provide(AmqpLive),
  Layer.launch,
  NodeRuntime.runMain({
    teardown: (exit, onExit) => onExit(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? 0 : 1)
  })
)
