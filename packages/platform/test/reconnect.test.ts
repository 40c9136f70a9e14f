// The delays of reconnecting as a schedule of Effect 3.
import { Amqp, AmqpConfig, AmqpConnection, AmqpError } from "@effect-amqp/platform"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, FiberRef, Schedule, Stream } from "effect"
import { Broker, layer as BrokerLayer } from "./support/Broker.ts"

const until = (tag: AmqpConnection.State["_tag"]) =>
  Effect.flatMap(AmqpConnection.AmqpConnection, ({ state }) =>
    Effect.map(
      Stream.runHead(Stream.filter(state.changes, ({ _tag }) => _tag === tag)),
      (state) => (state._tag === "Some" ? state.value : undefined)!
    )
  )

describe("reconnect.schedule", () => {
  layer(BrokerLayer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.scoped("gets each reason, with the fiber references of its maker, and closes the connection when it ends", () =>
      Effect.gen(function* () {
        const { closeConnections, url } = yield* Broker
        const tenant = yield* FiberRef.make("none")
        const seen: Array<AmqpError.AmqpErrorReason> = []
        const tenants: Array<string> = []
        const schedule = Schedule.exponential("1 millis").pipe(
          Schedule.intersect(Schedule.recurs(1)),
          Schedule.tapInput((reason: AmqpError.AmqpErrorReason) =>
            Effect.map(FiberRef.get(tenant), (tenant) => {
              seen.push(reason)
              tenants.push(tenant)
            })
          )
        )
        const config = yield* Effect.locally(
          AmqpConfig.fromUrl(url, { reconnect: { schedule, healthyAfter: "1 hour" } }),
          tenant,
          "acme"
        )
        yield* Effect.gen(function* () {
          const { state } = yield* AmqpConnection.AmqpConnection
          yield* closeConnections
          yield* Stream.runDrain(
            Stream.takeUntil(
              Stream.dropWhile(state.changes, ({ _tag }) => _tag === "Open"),
              ({ _tag }) => _tag === "Open"
            )
          )
          yield* closeConnections
          const closed = yield* until("Closed")
          assert(closed._tag === "Closed")
          assert.strictEqual(seen.length, 2)
          assert.deepStrictEqual(tenants, ["acme", "acme"])
          for (const reason of seen) assert.instanceOf(reason, AmqpError.ConnectionClosed)
          assert.strictEqual(closed.reason?.message, seen[1]?.message)
        }).pipe(Effect.provide(Amqp.fromConfig(config)))
      })
    )

    it.scoped("decides the delays", () =>
      Effect.gen(function* () {
        const { closeConnections, url } = yield* Broker
        yield* Effect.gen(function* () {
          const { state } = yield* AmqpConnection.AmqpConnection
          const begin = Date.now()
          yield* closeConnections
          yield* Stream.runDrain(
            Stream.takeUntil(
              Stream.dropWhile(state.changes, ({ _tag }) => _tag === "Open"),
              ({ _tag }) => _tag === "Open"
            )
          )
          assert.isAtLeast(Date.now() - begin, 400)
        }).pipe(Effect.provide(Amqp.layer({ url, reconnect: { schedule: Schedule.spaced("400 millis") } })))
      })
    )

    it.effect("is a schedule, and excludes the other delays", () =>
      Effect.gen(function* () {
        const wrong = yield* Effect.flip(AmqpConfig.make({ reconnect: { schedule: "1 second" as never } }))
        assert.include(wrong.message, "reconnect.schedule")
        const both = yield* Effect.flip(
          AmqpConfig.make({ reconnect: { schedule: Schedule.spaced("1 second"), minDelay: "1 second" } })
        )
        assert.include(both.message, "reconnect.minDelay")
      })
    )
  })
})
