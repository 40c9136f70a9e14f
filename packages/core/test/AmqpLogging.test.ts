/** What is logged: one line per event, which says where it belongs, and nothing for a message that goes well. */
import { assert, describe, layer } from "@effect/vitest"
import { Amqp, AmqpChannel, AmqpConsumer, AmqpPool, AmqpPublisher, AmqpRpc } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Deferred, Duration, Effect, Fiber, Logger, References, Schema, Stream } from "effect"
import { configOf, type Overrides } from "./support/amqp.ts"
import { declare } from "./support/queues.ts"

interface Line {
  readonly level: string
  readonly message: string
  readonly annotations: Readonly<Record<string, unknown>>
  readonly spans: ReadonlyArray<string>
}

/** Runs a program with the whole library on the test's broker, and passes it what is logged, at every level. */
const logged = <A, E, R>(program: (lines: ReadonlyArray<Line>) => Effect.Effect<A, E, R>, overrides?: Overrides) =>
  Effect.gen(function* () {
    const { url } = yield* TestBroker.TestBroker
    const lines: Array<Line> = []
    const logger = Logger.make(({ fiber, logLevel, message }) => {
      const [first] = Array.isArray(message) ? (message as ReadonlyArray<unknown>) : [message]
      lines.push({
        level: logLevel,
        message: String(first),
        annotations: fiber.getRef(References.CurrentLogAnnotations),
        spans: fiber.getRef(References.CurrentLogSpans).map(([label]) => label)
      })
    })
    const result = yield* Effect.scoped(program(lines)).pipe(
      Effect.provide(Amqp.fromConfig(configOf(url, overrides)), { local: true }),
      Effect.provide(Logger.layer([logger])),
      Effect.provideService(References.MinimumLogLevel, "All")
    )
    return { lines, result }
  })

/** Polls until there is such a line, for at most 5 seconds. */
const until = (lines: ReadonlyArray<Line>, message: string, many = 1) =>
  Effect.gen(function* () {
    for (let i = 0; i < 5000; i++) {
      const found = lines.filter((line) => line.message.startsWith(message))
      if (found.length >= many) return found
      yield* Effect.sleep("1 millis")
    }
    return yield* Effect.die(new Error(`no line "${message}" among ${lines.map(({ message }) => message).join("; ")}`))
  })

const long = "AMQP channel borrowed for long"

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("the consumers' connection", () => {
    it.effect("has none of the annotations and spans of the consumer that made it", () =>
      logged(
        (lines) =>
          Effect.gen(function* () {
            const broker = yield* TestBroker.TestBroker
            yield* declare("shared")
            const first = yield* AmqpConsumer.consume("shared", () => Effect.void).pipe(
              Effect.annotateLogs({ requestId: "r-1" }),
              Effect.withLogSpan("request"),
              Effect.forkChild
            )
            yield* until(lines, "AMQP consumer subscribed")
            yield* Effect.forkChild(AmqpConsumer.consume("shared", () => Effect.void))
            yield* until(lines, "AMQP consumer subscribed", 2)
            yield* Fiber.interrupt(first)
            yield* broker.killConnections
            yield* until(lines, "AMQP consumer subscribed", 3)
            const about = lines.filter(({ annotations }) => annotations["amqp.connection"] === "shop consumers")
            const ofConnection = about.filter(({ message }) => message.startsWith("AMQP connection"))
            assert.isAtLeast(ofConnection.length, 3)
            for (const { annotations } of ofConnection) assert.notProperty(annotations, "requestId")
            for (const { spans } of ofConnection) assert.deepStrictEqual(spans, [])
          }),
        { connectionName: "shop" }
      )
    )
  })

  describe("a channel that is borrowed for long", () => {
    const longBorrow = Duration.millis(100)

    const checkout = Effect.fn("checkout")(function* (release: Deferred.Deferred<void>) {
      yield* AmqpChannel.use(() => Deferred.await(release))
    })

    it.effect("is warned about once, and the warning says where the channel was borrowed", () =>
      logged(
        (lines) =>
          Effect.gen(function* () {
            const release = yield* Deferred.make<void>()
            const holder = yield* Effect.forkChild(Effect.withSpan(Effect.scoped(checkout(release)), "POST /checkout"))
            const [warning] = yield* until(lines, long)
            // Short borrows that come and go in the meantime are not warned about.
            for (let i = 0; i < 20; i++) {
              yield* Effect.scoped(AmqpChannel.use(() => Effect.sleep("10 millis")))
            }
            yield* Deferred.succeed(release, undefined)
            yield* Fiber.join(holder)
            assert.strictEqual(lines.filter(({ message }) => message.startsWith(long)).length, 1)
            const { annotations, level } = warning!
            assert.strictEqual(level, "Warn")
            assert.deepInclude(annotations, {
              kind: "regular",
              borrowedIn: "checkout < POST /checkout",
              "amqp.connection": "shop",
              "amqp.connection.generation": 1,
              "amqp.channel": 1
            })
            assert.match(String(annotations["at"]), /AmqpLogging\.test\.ts/)
            assert.match(String(annotations["heldFor"]), /^[1-9]\d\dms|^\d+s/)
            assert.match(String(annotations["traceId"]), /^[0-9a-f]{32}$/)
          }),
        { connectionName: "shop", pool: { max: 2, longBorrow } }
      )
    )

    for (const kind of ["regular", "confirm", "transaction"] as const) {
      it.effect(`of kind ${kind} is noticed, also after a period without borrows`, () =>
        logged(
          (lines) =>
            Effect.gen(function* () {
              const pool = yield* AmqpPool.AmqpPool
              const { use } = kind === "regular" ? pool : pool[kind]
              // The check for long borrows has found nothing borrowed, and has stopped.
              yield* use(() => Effect.void)
              yield* Effect.sleep("120 millis")
              const release = yield* Deferred.make<void>()
              const holder = yield* Effect.forkChild(use(() => Deferred.await(release)))
              const [warning] = yield* until(lines, long)
              assert.strictEqual(warning!.annotations["kind"], kind)
              assert.strictEqual(warning!.annotations["borrowedIn"], "no Effect.fn or Effect.withSpan")
              yield* Deferred.succeed(release, undefined)
              yield* Fiber.join(holder)
            }),
          { pool: { max: 2, longBorrow } }
        )
      )
    }

    it.effect("is not warned about unless the setting is given", () =>
      logged(
        (lines) =>
          Effect.gen(function* () {
            yield* Effect.scoped(AmqpChannel.use(() => Effect.sleep("150 millis")))
            assert.notInclude(lines.map(({ message }) => message).join(), long)
          }),
        { pool: { longBorrow: undefined } }
      )
    )
  })

  describe("log lines", () => {
    it.effect("of the library name their connection, and lines about a channel give its number", () =>
      Effect.gen(function* () {
        const broker = yield* TestBroker.TestBroker
        const { lines } = yield* logged(
          (lines) =>
            Effect.gen(function* () {
              yield* declare("named")
              yield* Effect.forkScoped(
                Effect.exit(AmqpConsumer.consume("named", () => Effect.fail("no"), { onFailure: AmqpConsumer.drop }))
              )
              yield* AmqpPublisher.publish({ routingKey: "named", content: "x" })
              yield* until(lines, "AMQP delivery failed")
              const Ask = AmqpRpc.make("ask", { payload: Schema.Int })
              yield* declare("ask")
              yield* Effect.forkScoped(Effect.exit(AmqpRpc.serve(Ask, () => Effect.die("no"))))
              yield* Effect.ignore(AmqpRpc.client(Ask)(7))
              yield* until(lines, "AMQP RPC handler")
              yield* Effect.ignore(AmqpConsumer.consume("named", () => Effect.void, { prefetch: 0 }))
              yield* Effect.ignore(AmqpConsumer.consume("not there", () => Effect.void))
              // Without a confirm no operation reports the error.
              const gone = { exchange: "not there", routingKey: "", content: "x" }
              yield* Effect.scoped(AmqpChannel.use((channel) => channel.publish(gone)))
              yield* until(lines, "AMQP channel closed")
              const unroutable = { routingKey: "nowhere", content: "x" }
              yield* Effect.scoped(
                AmqpChannel.use((channel) =>
                  Effect.andThen(channel.publish(unroutable, { mandatory: true }), channel.queueDeclare("named"))
                )
              )
              yield* until(lines, "AMQP mandatory")
              yield* broker.closeConnections()
              yield* until(lines, "AMQP connection open", 4)
              yield* until(lines, "AMQP consumer subscribed", 4)
            }),
          { connectionName: "shop" }
        )
        const nameless = lines.filter(
          ({ annotations, message }) =>
            message.startsWith("AMQP") && !["shop", "shop consumers"].includes(String(annotations["amqp.connection"]))
        )
        assert.deepStrictEqual(nameless, [])
        const of = (message: string) => lines.filter((line) => line.message.startsWith(message))
        for (const message of [
          "AMQP delivery failed",
          "AMQP RPC handler",
          "AMQP consumer subscribed",
          "AMQP channel closed",
          "AMQP mandatory"
        ]) {
          for (const { annotations } of of(message)) {
            assert.isAtLeast(Number(annotations["amqp.channel"]), 1, message)
            assert.isAtLeast(Number(annotations["amqp.connection.generation"]), 1, message)
          }
        }
        assert.deepStrictEqual(
          of("AMQP connection open")
            .filter(({ annotations }) => annotations["amqp.connection"] === "shop")
            .map(({ annotations }) => annotations["amqp.connection.generation"]),
          [1, 2]
        )
        assert.isAtLeast(of("AMQP connection lost").length, 2)
      })
    )

    it.effect("are as many for a thousand messages as for one", () =>
      Effect.gen(function* () {
        const linesFor = (messages: number) =>
          Effect.map(
            logged((lines) =>
              Effect.gen(function* () {
                yield* declare("quiet")
                const done = yield* Deferred.make<void>()
                let seen = 0
                const consumer = yield* Effect.forkChild(
                  AmqpConsumer.consume("quiet", () =>
                    Effect.sync(() => ++seen === messages && Deferred.doneUnsafe(done, Effect.void))
                  )
                )
                const message = { routingKey: "quiet", content: "x" }
                yield* AmqpPublisher.publish(message)
                yield* Stream.runDrain(AmqpPublisher.publishAll(Array.from({ length: messages - 1 }, () => message)))
                for (let i = 0; i < messages; i++) yield* Effect.scoped(AmqpChannel.use(() => Effect.void))
                yield* Deferred.await(done)
                yield* until(lines, "AMQP consumer subscribed")
                yield* Fiber.interrupt(consumer)
              })
            ),
            ({ lines }) => lines.map(({ message }) => message).toSorted()
          )
        assert.deepStrictEqual(yield* linesFor(1000), yield* linesFor(1))
      })
    )
  })
})
