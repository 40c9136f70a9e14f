/**
 * Operations that a queue of a known type does not support. RabbitMQ answers each of these with a connection error
 * (540), which ends all work on that connection. So none of them is sent where the type is known: where this
 * application has declared the queue.
 *
 * | operation | queue | 3.10 | 4.0 | 4.3 |
 * | --- | --- | --- | --- | --- |
 * | `basic.get`, `queue.purge`, `basic.consume` with `noAck` | stream | 540 | 540 | 540 |
 * | `queue.delete` with `ifEmpty` or `ifUnused` | quorum | 540 | 540 | 540 |
 * | `basic.consume` after `basic.qos` with `global` | quorum | 540 | 540 | works |
 */
import { InvalidArgument } from "../../model/errorReason.ts"
import { type KnownQueues, typeOf } from "./knownQueues.ts"
import { isBefore } from "../wire/versions.ts"

type Type = "quorum" | "stream"

const refusal = (operation: string, argument: string, queue: string, type: Type, cure: string): InvalidArgument =>
  new InvalidArgument({
    message: `${operation}: ${argument}: expected a queue that is not a ${type === "stream" ? "stream" : "quorum queue"}, got ${JSON.stringify(queue)}: RabbitMQ would close the connection (540), with all of its channels. ${cure} Nothing was sent.`,
    operation,
    argument
  })

const isOf = (type: Type, queues: KnownQueues, queue: string): boolean => typeOf(queues.get(queue)) === type

export const checkTypeForGet = (queues: KnownQueues, queue: string): InvalidArgument | undefined =>
  isOf("stream", queues, queue)
    ? refusal(
        "basic.get",
        "queue",
        queue,
        "stream",
        "Consume it instead: AmqpConsumer.stream can take a number of messages."
      )
    : undefined

export const checkTypeForPurge = (queues: KnownQueues, queue: string): InvalidArgument | undefined =>
  isOf("stream", queues, queue)
    ? refusal("queue.purge", "queue", queue, "stream", "Delete it and declare it again, or limit it with x-max-age.")
    : undefined

export const checkTypeForDelete = (
  queues: KnownQueues,
  queue: string,
  { ifEmpty, ifUnused }: { readonly ifEmpty: boolean; readonly ifUnused: boolean }
): InvalidArgument | undefined =>
  (ifEmpty || ifUnused) && isOf("quorum", queues, queue)
    ? refusal(
        "queue.delete",
        ifEmpty ? "ifEmpty" : "ifUnused",
        queue,
        "quorum",
        "Check the counts of queueDeclarePassive first, then delete it without this option."
      )
    : undefined

// Tested: 3.10 and 4.0 refuse it. 4.3 has no global prefetch, and applies the number to each consumer.
const supportsGlobalPrefetch = (product: string): boolean => !isBefore(product, 4, 3)

export const checkTypeForConsume = (
  queues: KnownQueues,
  { noAck, queue }: { readonly noAck: boolean; readonly queue: string },
  hasGlobalPrefetch: boolean,
  product: string
): InvalidArgument | undefined => {
  if (noAck && isOf("stream", queues, queue)) {
    return refusal(
      "basic.consume",
      "noAck",
      queue,
      "stream",
      "Leave noAck out, set a prefetch, and acknowledge deliveries."
    )
  }
  if (hasGlobalPrefetch && !supportsGlobalPrefetch(product) && isOf("quorum", queues, queue)) {
    return refusal(
      "basic.consume",
      "queue",
      queue,
      "quorum",
      "This channel has a prefetch for all of its consumers (qos with global): set one for each consumer instead."
    )
  }
  return undefined
}
