/**
 * What a queue of a known type does not take. RabbitMQ answers each of these with an error of the connection (540), which
 * ends the work of all on it, so none is sent where the type is known: where this application has declared the queue.
 *
 * | operation | queue | 3.10 | 4.0 | 4.3 |
 * | --- | --- | --- | --- | --- |
 * | `basic.get`, `queue.purge`, `basic.consume` with `noAck` | stream | 540 | 540 | 540 |
 * | `queue.delete` with `ifEmpty` or `ifUnused` | quorum | 540 | 540 | 540 |
 * | `basic.consume` behind `basic.qos` with `global` | quorum | 540 | 540 | works |
 */
import { InvalidArgument } from "../../model/errorReason.ts"
import { type KnownQueues, typeOf } from "./knownQueues.ts"
import { isBefore } from "../wire/versions.ts"

type Type = "quorum" | "stream"

const refusal = (operation: string, argument: string, queue: string, type: Type, cure: string): InvalidArgument =>
  new InvalidArgument({
    message: `${operation}: ${argument}: ${JSON.stringify(queue)} is a ${type === "stream" ? "stream" : "quorum queue"}, and RabbitMQ closes the connection over this (540), for all who use it. ${cure} Nothing was sent.`,
    operation,
    argument
  })

const isOf = (type: Type, queues: KnownQueues, queue: string): boolean => typeOf(queues.get(queue)) === type

export const refusesGet = (queues: KnownQueues, queue: string): InvalidArgument | undefined =>
  isOf("stream", queues, queue)
    ? refusal(
        "basic.get",
        "queue",
        queue,
        "stream",
        "Consume it instead: AmqpConsumer.stream takes a number of messages."
      )
    : undefined

export const refusesPurge = (queues: KnownQueues, queue: string): InvalidArgument | undefined =>
  isOf("stream", queues, queue)
    ? refusal("queue.purge", "queue", queue, "stream", "Delete it and declare it again, or bound it by x-max-age.")
    : undefined

export const refusesDelete = (
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
        "Look at the counts of queueDeclarePassive first, then delete it without this option."
      )
    : undefined

// Tried: 3.10 and 4.0 refuse it; 4.3 has no global prefetch, and takes it for one of each consumer.
const takesGlobalPrefetch = (product: string): boolean => !isBefore(product, 4, 3)

export const refusesConsume = (
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
  if (hasGlobalPrefetch && !takesGlobalPrefetch(product) && isOf("quorum", queues, queue)) {
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
