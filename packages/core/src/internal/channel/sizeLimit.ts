/** The maximum size of a message. A larger one would make the broker close the channel, with the messages of others. */
import { type InvalidArgument, MessageTooLarge } from "../../model/errorReason.ts"
import type { Message } from "../../model/message.ts"
import type { Link } from "../connection/link.ts"
import { isInvalidArgument } from "../wire/optionTable.ts"
import { toOutgoing, withoutContent } from "../wire/properties.ts"
import { versionOf } from "../wire/versions.ts"

const mebibyte = 2 ** 20

/**
 * The default maximum size of a content, in bytes: RabbitMQ's `max_message_size`
 * (https://www.rabbitmq.com/docs/configure#config-items). The limits of other products are unknown.
 */
const limitOf = (product: string | undefined): number => {
  const [major] = versionOf(product ?? "") ?? []
  if (major === undefined) return Infinity
  return major >= 4 ? 16 * mebibyte : 128 * mebibyte
}

/** A message whose size was checked when it was accepted. */
export interface Measured {
  readonly message: Message
  /** Size of the content, in bytes. */
  readonly size: number
  /** The `frameMax` of the connection at that time; undefined if there was no connection. */
  readonly frameMax: number | undefined
}

export class SizeLimit {
  readonly #configured: number | undefined
  // The limit is cached for the last broker's product, which seldom changes.
  #product: string | undefined = undefined
  #ofProduct = Infinity

  /** @param configured `maxMessageSize`; undefined means the default of the broker's product and version */
  constructor(configured: number | undefined) {
    this.#configured = configured
  }

  /** Why a content of `size` bytes cannot be sent to a broker of this product; undefined if it can. */
  refuses(size: number, product: string | undefined): MessageTooLarge | undefined {
    if (this.#configured === undefined && product !== this.#product) {
      this.#product = product
      this.#ofProduct = limitOf(product)
    }
    const limit = this.#configured ?? this.#ofProduct
    if (size <= limit) return undefined
    return new MessageTooLarge({
      message: `basic.publish: content: expected at most ${limit} bytes (maxMessageSize, or the broker's own limit), got ${size}. Nothing was sent.`,
      operation: "basic.publish"
    })
  }

  /** Why a message that was accepted under another connection, or without one, cannot be sent on this one. */
  refusesOn(link: Link, { frameMax, message, size }: Measured): MessageTooLarge | InvalidArgument | undefined {
    const refused = this.refuses(size, link.product)
    // The headers must fit into one frame: a frame that is too large would end the connection.
    if (refused !== undefined || frameMax === link.frameMax || message.headers === undefined) return refused
    const outgoing = toOutgoing(withoutContent(message), link.frameMax)
    return isInvalidArgument(outgoing) ? outgoing : undefined
  }
}
