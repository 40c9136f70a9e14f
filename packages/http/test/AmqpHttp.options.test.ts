/** Options with a name that does not exist are refused where the program is built. */
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Amqp, AmqpBroker } from "@effect-amqp/core"
import { AmqpDashboard, AmqpGateway, AmqpHealth, AmqpHttp, AmqpHttpServer } from "@effect-amqp/http"
import { Cause, Effect, Layer, References } from "effect"
import { HttpRouter } from "effect/http"
import { createServer } from "node:http"

class Orders extends AmqpBroker.Service<Orders>()("AmqpHttp.options/Orders") {}

// Nothing listens there, and nothing connects.
const noBroker = { host: "127.0.0.1", port: 1, lazyConnect: true }
const services = Layer.mergeAll(Amqp.layer(noBroker), Orders.layer(noBroker), HttpRouter.layer)
const build = <A, E>(layer: Layer.Layer<A, E, Layer.Success<typeof services>>) =>
  Effect.scoped(Effect.asVoid(Layer.build(Layer.provide(layer, services))))

const authorize = () => Effect.succeed("allow" as const)
const limits = { body: 1, prefetch: 1, idleTimeout: "1 second", streams: 1 } as const
const server = NodeHttpServer.layer(createServer, { port: 0 })

/** Each record of options: what builds a program with it, a misspelled name, and the name that was meant. */
const records: ReadonlyArray<
  readonly [where: string, (options: object) => Effect.Effect<unknown, unknown>, wrong: string, meant: string]
> = [
  ["AmqpHealth.layer", (options) => build(AmqpHealth.layer(options)), "readypath", "readyPath"],
  ["AmqpHealth.check", (options) => Effect.provide(AmqpHealth.check(options), services), "blcoked", "blocked"],
  ["AmqpHttp.layerWith", (options) => build(AmqpHttp.layerWith(options)), "toResponce", "toResponse"],
  ["AmqpHttp.layerKeyed", (options) => build(AmqpHttp.layerKeyed([Orders], options)), "response", "toResponse"],
  ["AmqpHttpServer.graceful", (options) => build(server.pipe(AmqpHttpServer.graceful(options))), "dealy", "delay"],
  ["AmqpGateway", (options) => build(AmqpGateway.layer({ authorize, limits, ...options })), "orgins", "origins"],
  [
    "AmqpGateway: limits",
    (options) => build(AmqpGateway.layer({ authorize, limits: { ...limits, ...options } })),
    "batch_lines",
    "batchLines"
  ],
  ["AmqpDashboard", (options) => build(AmqpDashboard.layer({ authorize, ...options })), "chalenge", "challenge"],
  [
    "AmqpDashboard: limits",
    (options) => build(AmqpDashboard.layer({ authorize, limits: options })),
    "viewer",
    "viewers"
  ]
]

describe("An option with an unknown name", () => {
  for (const [where, make, wrong, meant] of records) {
    it.live(`of ${where} is refused, also if it is undefined, with the name that was meant`, () =>
      Effect.gen(function* () {
        yield* make({})
        for (const [name, hint] of [
          [wrong, `. Did you mean ${meant}?`],
          ["somethingElse", "."]
        ] as const) {
          for (const value of [1, undefined]) {
            const cause = yield* Effect.flip(Effect.sandbox(make({ [name]: value })))
            const [message = ""] = Cause.prettyErrors(cause).map((error) => error.message)
            assert.isTrue(message.startsWith(`${where}: expected only `), message)
            assert.isTrue(message.endsWith(`, got ${JSON.stringify(name)}${hint}`), message)
          }
        }
      }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
    )
  }
})
