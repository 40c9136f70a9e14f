/** Deliveries, and to which channel each belongs: its tag means nothing on another. */
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

/** Whether a delivery is known to be of a stream, and so is settled by `basic.ack` alone. */
export const isOfStream = (delivery: Delivery): boolean => ChannelDelivery.isOfStream(delivery)

/** Whether a delivery may be settled on this channel: if not, the broker would close it (406). */
export const isUnsettled = (channel: Channel, delivery: Delivery): boolean =>
  typeof delivery === "object" &&
  delivery !== null &&
  ChannelDelivery.channelOf(delivery) === channel &&
  channel.unsettled.has(delivery.deliveryTag)

/** What `multiple` means: the unsettled deliveries of a channel up to a tag. */
export const upTo = (channel: Channel, deliveryTag: number): Array<number> =>
  // They are in the order in which they came, save those that a rollback has put back.
  Array.from(channel.unsettled).filter((tag) => tag <= deliveryTag)
