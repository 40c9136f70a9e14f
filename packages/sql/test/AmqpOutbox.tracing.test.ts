/** One trace, from the transaction that writes a message to the handler of its consumer. */
import { assert, describe, layer } from "@effect/vitest"
import { AmqpChannel, AmqpConsumer } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpInbox, AmqpOutbox } from "@effect-amqp/sql"
import { Deferred, Effect, Tracer } from "effect"
import { SqlClient } from "effect/sql"
import { collecting, parentOf } from "../../core/test/support/spans.ts"
import { databases } from "./support/databases.ts"

for (const [name, database] of databases) {
  layer(database, { excludeTestServices: true, timeout: "3 minutes" })(name, (it) => {
    describe("A message of the outbox", () => {
      it.effect("has its creation, its publish and its handler in the trace of the transaction", () =>
        Effect.suspend(() => {
          const { ended, one, tracer } = collecting()
          const program = Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            const handled = yield* Deferred.make<void>()
            yield* AmqpChannel.use((channel) => channel.queueDeclare("traced"))
            yield* Effect.forkScoped(
              AmqpConsumer.consume("traced", () => Deferred.succeed(handled, undefined), { inbox: AmqpInbox.sql() })
            )
            yield* sql
              .withTransaction(AmqpOutbox.publish({ routingKey: "traced", content: "x" }))
              .pipe(Effect.withSpan("POST /orders"))
            yield* Deferred.await(handled)
            const request = yield* one("POST /orders")
            const create = yield* one("create traced")
            const publish = yield* one("publish traced")
            const process = yield* one("process traced")
            const transactions = yield* ended("sql.transaction", 2)
            const ofRequest = transactions.find((span) => parentOf(span) === request.spanId)
            assert.strictEqual(parentOf(create), ofRequest?.spanId)
            assert.deepStrictEqual([parentOf(publish), parentOf(process)], [create.spanId, create.spanId])
            // The transaction of the inbox is below the handling.
            assert.isTrue(transactions.some((span) => parentOf(span) === process.spanId))
            for (const { traceId } of [create, publish, process]) assert.strictEqual(traceId, request.traceId)
          })
          return program.pipe(
            Effect.scoped,
            Effect.provide(AmqpOutbox.layerRelay(), { local: true }),
            Effect.provide(TestBroker.layerAmqp(), { local: true }),
            Effect.provideService(Tracer.Tracer, tracer)
          )
        })
      )
    })
  })
}
