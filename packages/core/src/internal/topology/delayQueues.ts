/**
 * Delay queues: the queues in which messages wait before the broker puts them back into their work queue.
 *
 * Their names are computed, never stored: a consumer, a topology and the headers of a message that comes back must agree
 * about them across processes and versions.
 */
import * as Crypto from "node:crypto"
import type { QueueDeclareOptions } from "../../model/channel.ts"
import { longestTtl } from "../wire/declarations.ts"

/** The longest name that AMQP carries, in bytes. */
const longestName = 255

const hashOf = (queue: string): string => Crypto.createHash("sha256").update(queue).digest("base64url").slice(0, 22)

/** The beginning of a text, at most this many bytes of UTF-8. */
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
 * The name of a queue beside another one: the other one's name with an ending. Where that would be too long, or begin with
 * `amq.` (names that only the broker may declare), a hash of the queue's name takes the place of its end or beginning: two
 * queues never share what is beside them.
 */
export const nameBeside = (queue: string, end: string): string => {
  const isReserved = queue.startsWith("amq.")
  if (!isReserved && Buffer.byteLength(queue) + end.length <= longestName) return queue + end
  const hash = `~${hashOf(queue)}`
  const start = isReserved ? queue.slice("amq.".length) : queue
  return beginningOf(start, longestName - hash.length - end.length) + hash + end
}

/** `<queue>.delay.<milliseconds>`, see `nameBeside`. */
export const delayQueueName = (queue: string, millis: number): string => nameBeside(queue, `.delay.${millis}`)

/**
 * The name up to version 0.1: `<queue>.retry.<milliseconds>`. Those queues were classic, and handed their messages on at
 * most once.
 */
export const formerDelayQueueName = (queue: string, millis: number): string => `${queue}.retry.${millis}`

/** Whether this is the name of a delay queue of the queue, with any delay, by its present or its former name. */
export const isDelayQueueOf = (queue: string, name: string): boolean => {
  const delay = /\.(?:delay|retry)\.(\d{1,12})$/.exec(name)?.[1]
  if (delay === undefined) return false
  const millis = Number(delay)
  return name === delayQueueName(queue, millis) || name === formerDelayQueueName(queue, millis)
}

/**
 * How a delay queue is kept:
 *
 * - `quorum`: on several nodes. A message leaves it when its work queue has confirmed it, so it is never lost: neither when
 *   a node dies, nor while the work queue refuses it, being full.
 * - `classic`: on one node. A message leaves it before it is known to have arrived: at most once.
 * - `exclusive`: classic, and gone with the connection that has declared it.
 * - `expiring`: classic, and gone some minutes after the last consumer that has renewed it.
 */
export type DelayQueueKind = "quorum" | "classic" | "exclusive" | "expiring"

/** How long an expiring delay queue outlives its messages, and how often its consumers renew it, in milliseconds. */
const expiry = 600_000
export const renewal = 60_000

/** The options of a delay queue. */
export const delayQueueOptions = (queue: string, millis: number, kind: DelayQueueKind): QueueDeclareOptions => {
  const back = { messageTtl: millis, deadLetterExchange: "", deadLetterRoutingKey: queue } as const
  switch (kind) {
    case "quorum":
      // Without `reject-publish` RabbitMQ dead-letters at most once, and does not say so.
      return { ...back, queueType: "quorum", deadLetterStrategy: "at-least-once", overflow: "reject-publish" }
    case "classic":
      return { ...back, queueType: "classic" }
    case "exclusive":
      return { ...back, queueType: "classic", durable: false, exclusive: true }
    case "expiring":
      return { ...back, queueType: "classic", expires: Math.min(millis + expiry, longestTtl) }
  }
}
