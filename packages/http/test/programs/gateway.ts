/**
 * A gateway in its own process, which allows every request. It prints its address, and repeatedly its state:
 * `state {"memory":200000000,...}`, see `State`. With `COLLECT=yes` it collects garbage each time.
 */
import { AmqpLive } from "@effect-amqp/core"
import { AmqpGateway, AmqpHttpServer } from "@effect-amqp/http"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Cause, Console, Effect, Exit, Layer, References, Schedule } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { createServer } from "node:http"
import { bytesHeld } from "../../../core/test/support/heap.ts"
import type { State } from "../support/attack.ts"
import { watchEventLoop } from "../support/eventLoop.ts"

const gateway = AmqpGateway.layer({
  authorize: () => Effect.succeed("allow"),
  limits: {
    body: "64 KiB",
    prefetch: 10,
    idleTimeout: "1 second",
    heartbeatInterval: "500 millis",
    streams: 20,
    resumeTimeout: "30 seconds"
  }
})

const server = NodeHttpServer.layerServer(createServer, {
  host: "127.0.0.1",
  port: 0,
  gracefulShutdownTimeout: "3 seconds"
}).pipe(AmqpHttpServer.graceful({ delay: 0 }))

const collects = process.env["COLLECT"] === "yes"

const delay = watchEventLoop()

/** Peak memory in use, and memory in use before the first request. */
let held = 0
let idle: number | undefined
let begun: readonly [cpu: NodeJS.CpuUsage, at: number] | undefined
const state = Effect.sync((): State => {
  if (collects) {
    const now = bytesHeld()
    idle ??= now
    held = Math.max(held, now)
  }
  begun ??= [process.cpuUsage(), performance.now()]
  const { system, user } = process.cpuUsage(begun[0])
  return {
    cpu: [(system + user) / 1e6, (performance.now() - begun[1]) / 1e3],
    memory: process.resourceUsage().maxRSS * 1024,
    growth: collects ? held - idle! : undefined,
    delay: delay()
  }
})

const announcement = Layer.effectDiscard(
  Effect.gen(function* () {
    const { address } = yield* HttpServer.HttpServer
    const tell = Effect.flatMap(state, (now) => Console.log(`state ${JSON.stringify(now)}`))
    yield* tell
    yield* Console.log(`listening on ${HttpServer.formatAddress(address)}`)
    yield* Effect.forkScoped(Effect.repeat(tell, Schedule.spaced(collects ? "700 millis" : "200 millis")))
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
