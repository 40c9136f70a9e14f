/** The error of a message without a key. */
import * as Schema from "effect/Schema"

/**
 * A message has no key, so an inbox could not recognize it when it comes again. Its handler was not called.
 *
 * **When to use**
 *
 * Use in `onFailure`, to choose what happens to such messages: they never get a key, so a policy that delivers them again
 * delivers them forever. `AmqpConsumer.deadLetter` sets them aside, in a queue with a dead-letter exchange.
 *
 * **Example** (Dead-lettering messages without a key)
 *
 * ```ts
 * import { AmqpConsumer } from "@effect-amqp/core"
 * import { AmqpInbox } from "@effect-amqp/sql"
 * import { Effect } from "effect"
 *
 * const payments = AmqpConsumer.consume("payments", () => Effect.log("charged"), {
 *   inbox: AmqpInbox.sql(),
 *   onFailure: (error) => (error._tag === "InboxKeyMissing" ? AmqpConsumer.deadLetter : AmqpConsumer.redeliver)
 * })
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class InboxKeyMissing extends Schema.TaggedError<InboxKeyMissing>("@effect-amqp/sql/InboxKeyMissing")(
  "InboxKeyMissing",
  {
    /** The queue that the message came from. */
    queue: Schema.String,
    /** The name of the consumer. */
    consumer: Schema.String
  }
) {
  override get message(): string {
    const { consumer, queue } = this
    return `AmqpInbox: expected a key of the message, by default its messageId, got none. Consumer ${JSON.stringify(consumer)}, queue ${JSON.stringify(queue)}. Publish with a messageId, choose another key with the option key, dead-letter such messages in onFailure, or handle them without protection from repeats: onMissingKey: "handle".`
  }
}
