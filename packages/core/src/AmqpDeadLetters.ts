/**
 * Dead letters: why messages failed, and how they get back to where they belong.
 *
 * **When to use**
 *
 * Use in tools for operators, and in tests: to read what is in a dead-letter queue, to publish chosen messages to the
 * queues in which they failed, and to remove others.
 *
 * **Details**
 *
 * Everything rests on RabbitMQ's queues; there is no other store. A consumer of this library that dead-letters a
 * message writes the reason into its headers (`AmqpConsumer`, the option `deadLettering`). For messages that others
 * have dead-lettered, the broker's `x-death` says less: that they were rejected, or expired, but not why.
 *
 * **Gotchas**
 *
 * Headers come from outside: every client that may publish to a dead-letter queue can write a reason and an origin. A
 * redrive publishes to the queue that they name, with the permissions of this application. Set `secret` where that
 * matters, or choose the target with `to`.
 *
 * **Example** (Bringing back what failed because of a database that was down)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { AmqpDeadLetters, AmqpLive } from "@effect-amqp/core"
 *
 * const letters = AmqpDeadLetters.of("orders.dead")
 *
 * const program = Effect.gen(function* () {
 *   const { groups, total } = yield* letters.peek()
 *   yield* Effect.log(`${total} dead letters`, groups)
 *   const report = yield* letters.redrive({ where: ({ reason }) => reason.error === "DatabaseDown", rate: 500 })
 *   yield* Effect.log(`${report.redriven} are back, ${report.left} stay`)
 * }).pipe(Effect.provide(AmqpLive))
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { AmqpConsumer } from "./model/consumer.ts"
import type { DeadLetters, Options } from "./model/deadLetters.ts"
import { type AmqpError, fromReason, type InvalidArgument } from "./model/error.ts"
import type { Part } from "./model/topology.ts"
import { moveAll, type Move } from "./internal/deadLetters/moving.ts"
import { operate, type Workbench } from "./internal/deadLetters/operations.ts"
import { type ChoiceSettings, readDiscard, readOptions, readPeek, readRedrive } from "./internal/deadLetters/options.ts"
import { peek } from "./internal/deadLetters/peeking.ts"
import { queuesOf } from "./internal/deadLetters/targets.ts"
import { isInvalidArgument } from "./internal/wire/optionTable.ts"

export * from "./model/deadLetters.ts"

/**
 * The dead letters of a queue, or of all dead-letter queues of a topology.
 *
 * **When to use**
 *
 * Use to read, redrive and discard dead letters.
 *
 * **Details**
 *
 * A string is the name of a dead-letter queue. A topology, or a single part, stands for the queues in which its dead
 * letters end: those that its dead-letter exchanges route to, and that have no dead-letter exchange themselves. So
 * queues in which messages wait for a retry do not count.
 *
 * Nothing is sent until one of the operations runs. They fail with `InvalidArgument` if the name or the options are
 * refused, or if the topology has no dead-letter queue.
 *
 * An operation uses the connection of the consumers, on which the broker accepts acknowledgements while it blocks
 * publishers.
 *
 * **Gotchas**
 *
 * - While an operation holds messages, other consumers of the dead-letter queue do not get them. Two operations on one
 *   queue share its messages, and each reports what it did.
 * - The queue must not be exclusive: an exclusive queue belongs to the connection that has declared it.
 * - Without the permission to configure the queue, its type stays unknown, and it is read by `basic.get`, which is
 *   slower: RabbitMQ names the type only when it refuses a declaration.
 *
 * **Example** (The dead letters of a topology)
 *
 * ```ts
 * import { AmqpDeadLetters, AmqpTopology } from "@effect-amqp/core"
 *
 * const topology = AmqpTopology.make(
 *   AmqpTopology.queue("orders", { deadLetterExchange: "", deadLetterRoutingKey: "orders.dead" }),
 *   AmqpTopology.queue("orders.dead", { queueType: "quorum" })
 * )
 *
 * // Its queues are ["orders.dead"].
 * const letters = AmqpDeadLetters.of(topology)
 * ```
 *
 * @see {@link DeadLetters} for the operations
 *
 * @category constructors
 * @since 0.1.0
 */
export const of = (target: string | Part, options?: Options): DeadLetters => {
  const queues = queuesOf(target)
  const settings = readOptions(options)
  const run = <S, A>(
    read: S | InvalidArgument,
    use: (bench: Workbench, queues: ReadonlyArray<string>, settings: S) => Effect.Effect<A, AmqpError>
  ): Effect.Effect<A, AmqpError, AmqpConsumer> => {
    for (const value of [queues, settings, read]) {
      if (isInvalidArgument(value)) return Effect.fail(fromReason(value))
    }
    return Effect.flatMap(AmqpConsumer, (consumer) =>
      operate(consumer, settings as Exclude<typeof settings, InvalidArgument>, (bench) =>
        use(bench, queues as ReadonlyArray<string>, read as S)
      )
    )
  }
  const move = (how: Move, read: ChoiceSettings | InvalidArgument) =>
    run(read, (bench, queues, settings) => moveAll(bench, queues, how, settings))
  return {
    queues: isInvalidArgument(queues) ? [] : queues,
    peek: (options) => run(readPeek(options), peek),
    redrive: (options) => {
      const read = readRedrive(options)
      return move({ _tag: "Redrive", to: isInvalidArgument(read) ? undefined : read.to }, read)
    },
    discard: (options) => move({ _tag: "Discard" }, readDiscard(options))
  }
}
