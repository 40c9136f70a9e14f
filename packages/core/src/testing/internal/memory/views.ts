/** What a test reads of the broker. */
import { fixedHeaderSize, readContentHeader } from "../../../internal/wire/contentHeader.ts"
import { classBasic } from "../../../internal/wire/protocol.ts"
import type { DeliveredProperties } from "../../../model/message.ts"
import type { Publication } from "./model/channel.ts"
import { deliveredProperties } from "./model/delivered.ts"
import type { Message } from "./model/message.ts"
import type { Properties } from "./model/properties.ts"
import type { VirtualHost } from "./model/virtualHost.ts"
import type { Behavior } from "./version.ts"

/**
 * A message in a memory broker, as a test reads it.
 *
 * **When to use**
 *
 * Use to assert on what an application has published, and on what is left in a queue.
 *
 * @category models
 * @since 0.1.0
 */
export interface MemoryMessage {
  readonly exchange: string
  readonly routingKey: string
  /** The properties, headers included, as a consumer gets them. */
  readonly properties: DeliveredProperties
  readonly content: Buffer
  /** The content as UTF-8 text. */
  readonly text: string
  /** The queues that the message has reached; for a message in a queue, that queue. */
  readonly queues: ReadonlyArray<string>
}

/**
 * A queue of a memory broker, as a test reads it.
 *
 * **When to use**
 *
 * Use to assert on counts, and on the messages that no consumer has.
 *
 * @category models
 * @since 0.1.0
 */
export interface MemoryQueue {
  readonly name: string
  readonly type: "classic" | "quorum"
  /** Messages that are not delivered, in the order of their delivery. */
  readonly messages: ReadonlyArray<MemoryMessage>
  /** The number of `messages`. */
  readonly ready: number
  /** Deliveries that no client has settled yet. */
  readonly unsettled: number
  readonly consumers: number
}

/** Decodes properties as the driver does. */
export const decodeProperties = (
  { bytes }: Properties,
  size: number
): { readonly fields: DeliveredProperties; readonly problem: Error | undefined } => {
  const header = Buffer.alloc(fixedHeaderSize + bytes.length)
  header.writeUInt16BE(classBasic, 0)
  header.writeBigUInt64BE(BigInt(size), 4)
  header.set(bytes, fixedHeaderSize)
  const { decodeError: problem, fields } = readContentHeader(header, 0, 0, header.length)
  return { fields, problem }
}

const view = (
  { body, exchange, routingKeys: [routingKey = ""] }: Message,
  properties: Properties,
  queues: ReadonlyArray<string>
): MemoryMessage => ({
  exchange,
  routingKey,
  properties: decodeProperties(properties, body.length).fields,
  content: body,
  text: body.toString("utf8"),
  queues
})

export const publicationsOf = (publications: ReadonlyArray<Publication>): ReadonlyArray<MemoryMessage> =>
  publications.map(({ message, queues }) => view(message, message.properties, queues))

export const queuesOf = (behavior: Behavior, vhost: VirtualHost): ReadonlyArray<MemoryQueue> =>
  [...vhost.queues.values()].map((queue) => ({
    name: queue.name,
    type: queue.settings.isQuorum ? "quorum" : "classic",
    messages: queue.messages.map((queued) =>
      view(queued.message, deliveredProperties(behavior, queue, queued, false), [queue.name])
    ),
    ready: queue.ready,
    unsettled: queue.unsettled,
    consumers: queue.consumers.length
  }))
