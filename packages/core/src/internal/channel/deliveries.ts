/** Deliveries and the channels they belong to: a delivery tag is only valid on its own channel. */
import type { DeliveredProperties, Delivery } from "../../model/message.ts"
import type { Channel } from "./channel.ts"
import type { DeliveredMessage } from "../driver/driver.ts"

class ChannelDelivery implements Delivery {
  readonly content: Uint8Array
  readonly properties: DeliveredProperties
  readonly exchange: string
  readonly routingKey: string
  readonly redelivered: boolean
  readonly deliveryTag: number
  readonly messageCount: number | undefined
  readonly #channel: Channel
  readonly #ofStream: boolean

  constructor(channel: Channel, message: DeliveredMessage, ofStream: boolean) {
    this.content = message.content
    this.properties = message.properties
    this.exchange = message.exchange
    this.routingKey = message.routingKey
    this.redelivered = message.redelivered
    this.deliveryTag = message.deliveryTag
    this.messageCount = message.messageCount
    this.#channel = channel
    this.#ofStream = ofStream
  }

  static isOfStream(delivery: object): boolean {
    return #ofStream in delivery && delivery.#ofStream
  }

  static channelOf(delivery: object): Channel | undefined {
    return #channel in delivery ? delivery.#channel : undefined
  }
}

export const makeDelivery = (channel: Channel, message: DeliveredMessage, ofStream = false): Delivery =>
  new ChannelDelivery(channel, message, ofStream)

/** Whether a delivery is known to come from a stream, and so can only be settled with `basic.ack`. */
export const isOfStream = (delivery: Delivery): boolean => ChannelDelivery.isOfStream(delivery)

/**
 * Whether a delivery may be settled on this channel. If not, settling it would make the broker close the channel (406).
 */
export const isUnsettled = (channel: Channel, delivery: Delivery): boolean =>
  typeof delivery === "object" &&
  delivery !== null &&
  ChannelDelivery.channelOf(delivery) === channel &&
  channel.unsettled.has(delivery.deliveryTag)

/** The deliveries that `multiple` covers: the unsettled deliveries of a channel up to a tag. */
export const unsettledUpTo = (channel: Channel, deliveryTag: number): Array<number> =>
  // The set is in the order of arrival, except for tags that a rollback has added back, so all of it is filtered.
  Array.from(channel.unsettled).filter((tag) => tag <= deliveryTag)
