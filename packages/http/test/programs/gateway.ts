/**
 * A gateway in a process of its own, which lets everybody do everything. Prints where it listens, and again and again the most
 * memory it has had: `memory 200000000`.
 */
import { AmqpLive } from "@effect-amqp/core"
import { AmqpGateway, AmqpHttpServer } from "@effect-amqp/http"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Cause, Console, Effect, Exit, Layer, References, Schedule } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { createServer } from "node:http"

const gateway = AmqpGateway.layer({
  authorize: () => Effect.succeed("allow"),
  limits: { body: "64 KiB", prefetch: 10, idle: "1 second", heartbeat: "500 millis", streams: 20, resume: "5 seconds" }
})

const server = NodeHttpServer.layerServer(createServer, {
  host: "127.0.0.1",
  port: 0,
  gracefulShutdownTimeout: "3 seconds"
}).pipe(AmqpHttpServer.graceful({ delay: 0 }))

const announcement = Layer.effectDiscard(
  Effect.gen(function* () {
    const { address } = yield* HttpServer.HttpServer
    yield* Console.log(`listening on ${HttpServer.formatAddress(address)}`)
    const memory = Effect.suspend(() => Console.log(`memory ${process.resourceUsage().maxRSS * 1024}`))
    yield* Effect.forkScoped(Effect.repeat(memory, Schedule.spaced("200 millis")))
  })
)

announcement.pipe(
  Layer.provide(HttpRouter.serve(gateway, { disableLogger: true, disableListenLog: true })),
  Layer.provide(server),
  Layer.provide(AmqpLive),
  Layer.provide(Layer.succeed(References.MinimumLogLevel, "Error")),
  Layer.launch,
  NodeRuntime.runMain({
    teardown: (exit, onExit) => onExit(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? 0 : 1)
  })
)
