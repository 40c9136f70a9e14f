/** How large a message may be: a larger one would make the broker close the channel, and with it others' messages. */
import { type InvalidArgument, MessageTooLarge } from "../../model/errorReason.ts"
import type { Message } from "../../model/message.ts"
import type { Link } from "../connection/link.ts"
import { isRefused } from "../wire/optionTable.ts"
import { toPublish, withoutContent } from "../wire/properties.ts"
import { versionOf } from "../wire/versions.ts"

const mebibyte = 2 ** 20

/**
 * The largest content in bytes that a broker takes unless it is configured otherwise: RabbitMQ's `max_message_size`
 * (https://www.rabbitmq.com/docs/configure#config-items). Of other products nothing is known.
 */
const limitOf = (product: string | undefined): number => {
  const [major] = versionOf(product ?? "") ?? []
  if (major === undefined) return Infinity
  return major >= 4 ? 16 * mebibyte : 128 * mebibyte
}

/** A message that was found to be of no undue size when it was taken in. */
export interface Measured {
  readonly message: Message
  /** Of its content, in bytes. */
  readonly size: number
  /** Of the connection at that time; undefined if there was none. */
  readonly frameMax: number | undefined
}

export class SizeLimit {
  readonly #configured: number | undefined
  // The last broker's: the next is mostly the same.
  #product: string | undefined = undefined
  #ofProduct = Infinity

  /** @param configured `maxMessageSize`; undefined: as the broker's product and version say */
  constructor(configured: number | undefined) {
    this.#configured = configured
  }

  /** Why a content of so many bytes cannot be sent to a broker of this product; undefined if it can. */
  refuses(size: number, product: string | undefined): MessageTooLarge | undefined {
    if (this.#configured === undefined && product !== this.#product) {
      this.#product = product
      this.#ofProduct = limitOf(product)
    }
    const limit = this.#configured ?? this.#ofProduct
    if (size <= limit) return undefined
    return new MessageTooLarge({
      message: `basic.publish: content: wants at most ${limit} bytes (maxMessageSize, or the broker's own limit), got ${size}. Nothing was sent.`,
      operation: "basic.publish"
    })
  }

  /** Why a message that was taken in under another connection, or none, cannot be sent on this one. */
  refusesOn(link: Link, { frameMax, message, size }: Measured): MessageTooLarge | InvalidArgument | undefined {
    const refused = this.refuses(size, link.product)
    // Its headers are one frame: too large a one would end the connection.
    if (refused !== undefined || frameMax === link.frameMax || message.headers === undefined) return refused
    const outgoing = toPublish(withoutContent(message), link.frameMax)
    return isRefused(outgoing) ? outgoing : undefined
  }
}
