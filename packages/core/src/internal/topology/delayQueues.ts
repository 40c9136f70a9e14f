/**
 * Delay queues: the queues in which messages wait before the broker returns them to their work queue.
 *
 * Their names are computed, never stored: a consumer, a topology and the headers of a returning message must agree on
 * them across processes and versions.
 */
import * as Crypto from "node:crypto"
import type { QueueDeclareOptions } from "../../model/channel.ts"
import { maxTtlMillis } from "../wire/declarations.ts"

/** The longest name that AMQP can encode, in bytes. */
const longestName = 255

const hashOf = (queue: string): string => Crypto.createHash("sha256").update(queue).digest("base64url").slice(0, 22)

/** The longest prefix of a text that takes at most this many bytes of UTF-8. */
const beginningOf = (text: string, bytes: number): string => {
  let end = 0
  let size = 0
  for (const character of text) {
    size += Buffer.byteLength(character)
    if (size > bytes) break
    end += character.length
  }
  return text.slice(0, end)
}

/**
 * The name of a companion of a queue: the queue's name with a suffix. If that name is too long, or begins with `amq.`
 * (such names are reserved for the broker), a hash of the queue's name replaces its end or beginning. Two queues never
 * share a companion.
 */
export const companionQueueName = (queue: string, end: string): string => {
  const isReserved = queue.startsWith("amq.")
  if (!isReserved && Buffer.byteLength(queue) + end.length <= longestName) return queue + end
  const hash = `~${hashOf(queue)}`
  const start = isReserved ? queue.slice("amq.".length) : queue
  return beginningOf(start, longestName - hash.length - end.length) + hash + end
}

/** `<queue>.delay.<milliseconds>`, see `companionQueueName`. */
export const delayQueueName = (queue: string, millis: number): string => companionQueueName(queue, `.delay.${millis}`)

/**
 * The name up to version 0.1: `<queue>.retry.<milliseconds>`. Those queues were classic, and dead-lettered at most
 * once.
 */
export const legacyDelayQueueName = (queue: string, millis: number): string => `${queue}.retry.${millis}`

/** Whether a name is that of one of the queue's delay queues, for any delay, in its current or its former form. */
export const isDelayQueueOf = (queue: string, name: string): boolean => {
  const delay = /\.(?:delay|retry)\.(\d{1,12})$/.exec(name)?.[1]
  if (delay === undefined) return false
  const millis = Number(delay)
  return name === delayQueueName(queue, millis) || name === legacyDelayQueueName(queue, millis)
}

/**
 * How a delay queue stores messages:
 *
 * - `quorum`: on several nodes. A message leaves it when its work queue has confirmed it, so it is never lost: neither
 *   when a node dies, nor while the full work queue refuses it.
 * - `classic`: on one node. A message leaves it before its arrival is confirmed: at most once.
 * - `exclusive`: classic, and deleted with the connection that has declared it.
 * - `expiring`: classic, and deleted some minutes after its last consumer has renewed it for the last time.
 */
export type DelayQueueKind = "quorum" | "classic" | "exclusive" | "expiring"

/** How long an expiring delay queue outlives its messages, in milliseconds. */
const expiry = 600_000

/** How often consumers renew an expiring delay queue, in milliseconds. */
export const renewal = 60_000

/** The options to declare a delay queue with. */
export const delayQueueOptions = (queue: string, millis: number, kind: DelayQueueKind): QueueDeclareOptions => {
  const back = { messageTtl: millis, deadLetterExchange: "", deadLetterRoutingKey: queue } as const
  switch (kind) {
    case "quorum":
      // Without `reject-publish` RabbitMQ dead-letters at most once, and does not report it.
      return { ...back, queueType: "quorum", deadLetterStrategy: "at-least-once", overflow: "reject-publish" }
    case "classic":
      return { ...back, queueType: "classic" }
    case "exclusive":
      return { ...back, queueType: "classic", durable: false, exclusive: true }
    case "expiring":
      return { ...back, queueType: "classic", expires: Math.min(millis + expiry, maxTtlMillis) }
  }
}
