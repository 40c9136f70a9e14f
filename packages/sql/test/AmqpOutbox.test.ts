/** Writing to the outbox. */
import { assert, describe, layer } from "@effect/vitest"
import { type AmqpError, AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpOutbox, AmqpSql } from "@effect-amqp/sql"
import { BigDecimal, Deferred, Effect, Exit, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { databases } from "./support/databases.ts"
import { emptied, freshQueue, range, startRelay, take, waiting } from "./support/outbox.ts"

const message = { routingKey: "nowhere", content: "one" }

const uuidV7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

/** Everything that a message can have. */
const rich = (routingKey: string): AmqpMessage.Message => ({
  routingKey,
  content: Uint8Array.from(range(256)),
  contentType: "application/octet-stream",
  contentEncoding: "identity",
  priority: 7,
  correlationId: "correlation",
  replyTo: "replies",
  expiration: "10 minutes",
  messageId: "its own id",
  timestamp: new Date("2026-11-20T12:34:56Z"),
  type: "order.placed",
  appId: "grüße",
  persistent: false,
  headers: {
    traceparent,
    long: 2n ** 63n - 1n,
    minusZero: -0,
    fraction: 0.1,
    integer: -(2 ** 31),
    date: new Date("2001-02-03T04:05:06Z"),
    bytes: Uint8Array.of(0, 255, 128),
    decimal: BigDecimal.make(12_345n, 2),
    nothing: null,
    flag: true,
    text: "日本語 🐇 \0",
    nested: { list: [1, "two", [3n, { four: null }]], empty: {} }
  }
})

const isRefused = (argument: string) => (error: AmqpError.AmqpError) =>
  error.reason._tag === "InvalidArgument" && error.reason.argument === argument

/** Input that may come from a request, and what is refused. */
const refused: ReadonlyArray<readonly [what: string, argument: string, message: unknown, options?: unknown]> = [
  ["an unknown option", "immediate", message, { immediate: true }],
  ["options that are no object", "options", message, "mandatory"],
  ["null as options", "options", message, null],
  ["mandatory as a text", "mandatory", message, { mandatory: "yes" }],
  ["an empty key", "orderBy", message, { orderBy: "" }],
  ["a long key", "orderBy", message, { orderBy: "x".repeat(513) }],
  ["a key with NUL", "orderBy", message, { orderBy: "a\0b" }],
  ["a key with a lone surrogate", "orderBy", message, { orderBy: "a\ud800" }],
  ["a routing key with NUL", "routingKey", { ...message, routingKey: "a\0b" }],
  ["a routing key with a byte that is not UTF-8", "routingKey", { ...message, routingKey: "a\udc80" }],
  ["an exchange with NUL", "exchange", { ...message, exchange: "a\0b" }],
  ["a message id with NUL", "messageId", { ...message, messageId: "a\0b" }],
  ["a message id with a byte that is not UTF-8", "messageId", { ...message, messageId: "a\udc80" }],
  ["null as message id", "messageId", { ...message, messageId: null }],
  ["undefined as a message", "message", undefined],
  ["a text as a message", "message", "message"],
  ["a content with a lone surrogate", "content", { ...message, content: "\ud800" }],
  ["an unknown property", "subject", { ...message, subject: "x" }]
]

for (const [name, database] of databases) {
  layer(Layer.merge(TestBroker.layerAmqp(), database), { excludeTestServices: true, timeout: "3 minutes" })(
    name,
    (it) => {
      describe("A message stands in the outbox exactly if its transaction commits:", () => {
        it.effect("it commits", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            const { messageId } = yield* sql.withTransaction(AmqpOutbox.publish(message))
            assert.match(messageId, uuidV7)
            assert.strictEqual(yield* waiting, 1)
          })
        )

        it.effect("without a transaction, it is one", () =>
          Effect.gen(function* () {
            yield* emptied
            yield* AmqpOutbox.publish(message)
            yield* AmqpOutbox.publish(message, { orderBy: "key" })
            assert.strictEqual(yield* waiting, 2)
          })
        )

        const endings: ReadonlyArray<readonly [string, Effect.Effect<void, string>]> = [
          ["it fails", Effect.fail("no")],
          ["it dies", Effect.die("no")],
          ["it is interrupted", Effect.interrupt]
        ]
        for (const [how, ending] of endings) {
          it.effect(how, () =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              yield* emptied
              const exit = yield* sql
                .withTransaction(
                  AmqpOutbox.publish(message).pipe(
                    Effect.andThen(AmqpOutbox.publish(message, { orderBy: "key" })),
                    Effect.andThen(AmqpOutbox.publishAll([message, message])),
                    Effect.andThen(ending)
                  )
                )
                .pipe(Effect.exit)
              assert.isTrue(Exit.isFailure(exit))
              assert.strictEqual(yield* waiting, 0)
            })
          )
        }

        it.effect("it is interrupted from outside, between its statements", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            const written = yield* Deferred.make<void>()
            const transaction = yield* Effect.forkChild(
              sql.withTransaction(
                AmqpOutbox.publish(message, { orderBy: "key" }).pipe(
                  Effect.andThen(Deferred.succeed(written, undefined)),
                  Effect.andThen(Effect.never)
                )
              )
            )
            yield* Deferred.await(written)
            yield* Fiber.interrupt(transaction)
            assert.strictEqual(yield* waiting, 0)
            // Its key is free.
            yield* AmqpOutbox.publish(message, { orderBy: "key" })
          })
        )

        it.effect("its savepoint is rolled back", () =>
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* emptied
            yield* sql.withTransaction(
              Effect.gen(function* () {
                yield* AmqpOutbox.publish({ ...message, messageId: "kept" })
                yield* Effect.exit(
                  sql.withTransaction(
                    Effect.andThen(AmqpOutbox.publish({ ...message, messageId: "lost" }), Effect.fail("no"))
                  )
                )
              })
            )
            const rows = yield* sql<{ message_id: string }>`SELECT message_id FROM amqp_outbox`
            assert.deepStrictEqual(
              rows.map((row) => row.message_id),
              ["kept"]
            )
          })
        )
      })

      describe("A message arrives exactly as AmqpPublisher.publish sends it:", () => {
        const arrivesAsPublished = Effect.fnUntraced(function* (
          sent: AmqpMessage.Message,
          options?: AmqpOutbox.PublishOptions
        ) {
          yield* emptied
          yield* AmqpPublisher.publish(sent)
          yield* AmqpOutbox.publish(sent, options)
          yield* startRelay()
          const [direct, relayed] = yield* take(sent.routingKey, 2)
          assert.deepStrictEqual(relayed!.properties, direct!.properties)
          assert.deepStrictEqual(Buffer.from(relayed!.content), Buffer.from(direct!.content))
          assert.strictEqual(relayed!.exchange, direct!.exchange)
          return relayed!
        })

        it.effect("every property, every type of header, all bytes", () =>
          Effect.gen(function* () {
            const queue = yield* freshQueue()
            const { properties } = yield* arrivesAsPublished(rich(queue), { orderBy: "key", mandatory: false })
            assert.strictEqual(properties.messageId, "its own id")
            assert.strictEqual(properties.persistent, false)
            assert.isTrue(Object.is(properties.headers["minusZero"], -0))
          })
        )

        it.effect("a delivery that is forwarded, with the types that its sender chose", () =>
          Effect.gen(function* () {
            const queue = yield* freshQueue()
            yield* AmqpPublisher.publish(rich(queue))
            const [delivery] = yield* take(queue, 1)
            yield* arrivesAsPublished({ ...AmqpMessage.fromDelivery(delivery!), exchange: "", routingKey: queue })
          })
        )

        it.effect("an empty content, and nothing else", () =>
          Effect.gen(function* () {
            const queue = yield* freshQueue()
            yield* arrivesAsPublished({ routingKey: queue, content: "", messageId: "1", headers: { traceparent } })
          })
        )

        it.effect("the largest content", () =>
          Effect.gen(function* () {
            const queue = yield* freshQueue()
            const content = new Uint8Array(15 * 2 ** 20)
            yield* arrivesAsPublished({ routingKey: queue, content, messageId: "1", headers: { traceparent } })
          })
        )

        it.effect("with the id that publish has returned", () =>
          Effect.gen(function* () {
            yield* emptied
            const queue = yield* freshQueue()
            const { messageId } = yield* AmqpOutbox.publish({ routingKey: queue, content: "" })
            const [second] = yield* AmqpOutbox.publishAll([{ routingKey: queue, content: "" }])
            yield* startRelay()
            const ids = (yield* take(queue, 2)).map(({ properties }) => properties.messageId)
            assert.sameMembers(ids, [messageId, second!.messageId])
          })
        )

        it.effect("with a UUID as its id if its own is empty, by which an inbox recognizes it", () =>
          Effect.gen(function* () {
            yield* emptied
            const queue = yield* freshQueue()
            const message = { routingKey: queue, content: "", messageId: "" }
            const inherited = Object.assign(Object.create({ messageId: "" }), { routingKey: queue, content: "" })
            const written = [
              yield* AmqpOutbox.publish(message),
              yield* AmqpOutbox.publish(inherited),
              ...(yield* AmqpOutbox.publishAll([message]))
            ].map(({ messageId }) => messageId)
            for (const id of written) assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7/)
            assert.strictEqual(message.messageId, "")
            yield* startRelay()
            const ids = (yield* take(queue, 3)).map(({ properties }) => properties.messageId)
            assert.sameMembers(ids, written)
          })
        )
      })

      describe("Bad input is refused before anything is written, and the transaction goes on:", () => {
        for (const [what, argument, given, options] of refused) {
          it.effect(what, () =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              yield* emptied
              yield* sql.withTransaction(
                Effect.gen(function* () {
                  const error = yield* Effect.flip(
                    AmqpOutbox.publish(given as AmqpMessage.Message, options as AmqpOutbox.PublishOptions)
                  )
                  assert.isTrue(error._tag === "AmqpError" && isRefused(argument)(error), String(error))
                  assert.notInclude(error.message, "\0")
                  yield* AmqpOutbox.publish(message)
                })
              )
              assert.strictEqual(yield* waiting, 1)
            })
          )
        }

        it.effect("a content that is too large", () =>
          Effect.gen(function* () {
            yield* emptied
            const error = yield* Effect.flip(
              AmqpOutbox.publish({ ...message, content: new Uint8Array(15 * 2 ** 20 + 1) })
            )
            assert.isTrue(error._tag === "AmqpError" && error.reason._tag === "MessageTooLarge")
            assert.strictEqual(yield* waiting, 0)
          })
        )

        it.effect("one message of publishAll refuses them all", () =>
          Effect.gen(function* () {
            yield* emptied
            const bad = { ...message, content: "\ud800" }
            const error = yield* Effect.flip(AmqpOutbox.publishAll([message, bad, message]))
            assert.isTrue(error._tag === "AmqpError" && isRefused("content")(error))
            const unknown = { priority: 1 } as AmqpOutbox.PublishAllOptions
            assert.isTrue(Exit.isFailure(yield* Effect.exit(AmqpOutbox.publishAll([], unknown))))
            assert.strictEqual(yield* waiting, 0)
          })
        )
      })

      describe("publishAll", () => {
        it.effect("keeps the order of its messages, also of more than one statement takes", () =>
          Effect.gen(function* () {
            yield* emptied
            const sql = yield* SqlClient.SqlClient
            const numbers = range(1200).map(String)
            const written = yield* AmqpOutbox.publishAll(
              numbers.map((content) => ({ ...message, content })),
              { orderBy: () => "one key" }
            )
            const rows = yield* sql<{ message_id: string; content: Uint8Array }>`
              SELECT message_id, content FROM amqp_outbox ORDER BY position`
            assert.deepStrictEqual(
              rows.map(({ content }) => Buffer.from(content).toString()),
              numbers
            )
            assert.deepStrictEqual(
              rows.map((row) => row.message_id),
              written.map(({ messageId }) => messageId)
            )
          })
        )

        if (name === "PostgreSQL") {
          it.effect("prepares one statement for every number of messages", () =>
            Effect.gen(function* () {
              const sql = yield* SqlClient.SqlClient
              yield* emptied
              const inserts = Effect.map(
                sql`SELECT 1 FROM pg_prepared_statements WHERE statement LIKE 'INSERT INTO amqp_outbox (%'`,
                ({ length }) => length
              )
              const prepared = yield* sql.withTransaction(
                Effect.gen(function* () {
                  const before = yield* inserts
                  for (const count of range(20)) {
                    yield* AmqpOutbox.publishAll(
                      range(count + 1).map((n) => ({ routingKey: "nowhere", content: String(n) })),
                      { orderBy: ({ content }) => (Number(content) % 3 === 1 ? undefined : "key") }
                    )
                  }
                  return (yield* inserts) - before
                })
              )
              assert.isAtMost(prepared, 1)
              const keys = yield* sql<{ key: string | null; count: number }>`
                SELECT order_key AS key, count(*)::integer AS count FROM amqp_outbox GROUP BY 1 ORDER BY 1 NULLS LAST`
              assert.deepStrictEqual(
                keys.map(({ count, key }) => [key, count]),
                [
                  ["key", 140],
                  [null, 70]
                ]
              )
            })
          )
        }

        it.effect("writes nothing for no message", () =>
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* AmqpOutbox.publishAll([]), [])
          })
        )
      })

      it.effect("A missing table is an error that says how to create it", () =>
        Effect.gen(function* () {
          const error = yield* Effect.flip(
            AmqpOutbox.publish(message).pipe(Effect.provideService(AmqpSql.TablePrefix, "missing_"))
          )
          assert.strictEqual(error._tag, "SqlError")
          assert.include(error.message, "missing_outbox")
          assert.include(error.message, "AmqpSql.migrate")
        })
      )
    }
  )
}
