/** Borrowed channels: the core's, with their operations in Effect 3. */
import type { Amqp as CoreAmqp, AmqpChannel as Core } from "@effect-amqp/core"
import type * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Option4 from "@effect-amqp/effect4/Option"
import type * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Stream from "effect/Stream"
import type {
  AmqpChannel,
  BindOptions,
  Confirmed,
  ConfirmChannel,
  ConsumeOptions,
  Consumer,
  ExchangeDeclareOptions,
  ExchangeType,
  Operations,
  PublishOptions,
  QueueDeclared,
  QueueDeclareOptions,
  Returned,
  TransactionChannel
} from "../model/channel.ts"
import type { AmqpError } from "../model/error.ts"
import type { Delivery, Message } from "../model/message.ts"
import { type Inside, run4 } from "./run.ts"
import { queueToStream3 } from "./streams.ts"
import { adoptTable, toMessage4, toOptions4 } from "./values.ts"

export type AmqpInside = Inside<CoreAmqp.Amqp>

// The core knows its deliveries, so they cross as they are.
const toDelivery4 = (delivery: Delivery) => delivery as never

const adoptDelivery = (delivery: { readonly properties: { readonly headers: unknown } }): Delivery => {
  adoptTable(delivery.properties.headers)
  return delivery as never
}

class OperationsOf<Channel extends Core.Operations> implements Operations {
  readonly inside: AmqpInside
  readonly channel: Channel

  constructor(inside: AmqpInside, channel: Channel) {
    this.inside = inside
    this.channel = channel
  }

  run<A, B = A>(effect: Effect4.Effect<A, unknown>, map?: (value: A) => B): Effect.Effect<B, AmqpError> {
    return run4(this.inside, effect, map)
  }

  get(queue: string, options?: { readonly noAck?: boolean | undefined }) {
    return this.run(this.channel.get(queue, options), (delivery) =>
      Option4.isNone(delivery) ? Option.none() : Option.some(adoptDelivery(delivery.value))
    )
  }

  ack(delivery: Delivery, options?: { readonly multiple?: boolean | undefined }) {
    return this.run(this.channel.ack(toDelivery4(delivery), options))
  }

  nack(
    delivery: Delivery,
    options?: { readonly multiple?: boolean | undefined; readonly requeue?: boolean | undefined }
  ) {
    return this.run(this.channel.nack(toDelivery4(delivery), options))
  }

  reject(delivery: Delivery, options?: { readonly requeue?: boolean | undefined }) {
    return this.run(this.channel.reject(toDelivery4(delivery), options))
  }

  get recover(): Effect.Effect<void, AmqpError> {
    return this.run(this.channel.recover)
  }

  qos(prefetchCount: number, options?: { readonly global?: boolean | undefined }) {
    return this.run(this.channel.qos(prefetchCount, options))
  }

  consume(queue: string, options?: ConsumeOptions): Effect.Effect<Consumer, AmqpError> {
    return this.run(this.channel.consume(queue, toOptions4(options)), ({ consumerTag, deliveries }) => ({
      consumerTag,
      deliveries: queueToStream3(this.inside, deliveries, adoptDelivery)
    }))
  }

  cancel(consumerTag: string) {
    return this.run(this.channel.cancel(consumerTag))
  }

  flow(active: boolean) {
    return this.run(this.channel.flow(active))
  }

  exchangeDeclare(exchange: string, type: ExchangeType, options?: ExchangeDeclareOptions) {
    return this.run(this.channel.exchangeDeclare(exchange, type, toOptions4(options)))
  }

  exchangeDeclarePassive(exchange: string) {
    return this.run(this.channel.exchangeDeclarePassive(exchange))
  }

  exchangeDelete(exchange: string, options?: { readonly ifUnused?: boolean | undefined }) {
    return this.run(this.channel.exchangeDelete(exchange, options))
  }

  exchangeBind(destination: string, source: string, routingKey: string, options?: BindOptions) {
    return this.run(this.channel.exchangeBind(destination, source, routingKey, toOptions4(options)))
  }

  exchangeUnbind(destination: string, source: string, routingKey: string, options?: BindOptions) {
    return this.run(this.channel.exchangeUnbind(destination, source, routingKey, toOptions4(options)))
  }

  queueDeclare(queue: string, options?: QueueDeclareOptions): Effect.Effect<QueueDeclared, AmqpError> {
    return this.run(this.channel.queueDeclare(queue, toOptions4(options)))
  }

  queueDeclarePassive(queue: string): Effect.Effect<QueueDeclared, AmqpError> {
    return this.run(this.channel.queueDeclarePassive(queue))
  }

  queueBind(queue: string, exchange: string, routingKey: string, options?: BindOptions) {
    return this.run(this.channel.queueBind(queue, exchange, routingKey, toOptions4(options)))
  }

  queueUnbind(queue: string, exchange: string, routingKey: string, options?: BindOptions) {
    return this.run(this.channel.queueUnbind(queue, exchange, routingKey, toOptions4(options)))
  }

  queuePurge(queue: string) {
    return this.run(this.channel.queuePurge(queue))
  }

  queueDelete(
    queue: string,
    options?: { readonly ifEmpty?: boolean | undefined; readonly ifUnused?: boolean | undefined }
  ) {
    return this.run(this.channel.queueDelete(queue, options))
  }
}

class RegularChannelOf extends OperationsOf<Core.AmqpChannel> implements AmqpChannel {
  readonly kind = "regular"

  publish(message: Message, options?: PublishOptions) {
    return this.run(this.channel.publish(toMessage4(message), toOptions4(options)))
  }

  get returns(): Stream.Stream<Returned, AmqpError> {
    return queueToStream3(this.inside, this.channel.returns, adoptReturned)
  }
}

class ConfirmChannelOf extends OperationsOf<Core.ConfirmChannel> implements ConfirmChannel {
  readonly kind = "confirm"

  publish(message: Message, options?: PublishOptions): Effect.Effect<Confirmed, AmqpError> {
    return this.run(this.channel.publish(toMessage4(message), toOptions4(options)))
  }
}

class TransactionChannelOf extends OperationsOf<Core.TransactionChannel> implements TransactionChannel {
  readonly kind = "transaction"

  publish(message: Message, options?: PublishOptions) {
    return this.run(this.channel.publish(toMessage4(message), toOptions4(options)))
  }

  get returns(): Stream.Stream<Returned, AmqpError> {
    return queueToStream3(this.inside, this.channel.returns, adoptReturned)
  }

  get commit(): Effect.Effect<void, AmqpError> {
    return this.run(this.channel.commit)
  }

  get rollback(): Effect.Effect<void, AmqpError> {
    return this.run(this.channel.rollback)
  }
}

const adoptReturned = (returned: Core.Returned): Returned => {
  adoptTable(returned.properties.headers)
  return returned as never
}

/** The channel of a loan. */
export const makeChannel3 = (inside: AmqpInside, channel: Core.AmqpChannel): AmqpChannel =>
  new RegularChannelOf(inside, channel)

export const makeConfirmChannel3 = (inside: AmqpInside, channel: Core.ConfirmChannel): ConfirmChannel =>
  new ConfirmChannelOf(inside, channel)

export const makeTransactionChannel3 = (inside: AmqpInside, channel: Core.TransactionChannel): TransactionChannel =>
  new TransactionChannelOf(inside, channel)

const known = new WeakMap<object, unknown>()

/** Makes one channel per channel of the core: a scope gets the same one each time that it asks. */
export const once =
  <Channel4 extends object, Channel>(make: (inside: AmqpInside, channel: Channel4) => Channel) =>
  (inside: AmqpInside, channel: Channel4): Channel => {
    let made = known.get(channel) as Channel | undefined
    if (made === undefined) known.set(channel, (made = make(inside, channel)))
    return made
  }
