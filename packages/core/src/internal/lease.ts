/**
 * One borrow: the handle that a borrower works with, from the moment it has a channel until its scope ends.
 *
 * The handle is the borrower's; the channel is not. Once released, the handle knows no channel any more, so a late use
 * fails instead of touching the next borrower's.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type {
  AmqpChannel,
  ExchangeDeclareOptions,
  ExchangeType,
  PublishOptions,
  QueueDeclareOptions,
  QueueDeclared
} from "../AmqpChannel.ts"
import * as AmqpError from "../AmqpError.ts"
import type { Delivery, Headers, Message } from "../AmqpMessage.ts"
import type * as Amqplib from "./amqplib.ts"
import type { Channel } from "./channel.ts"
import { classify } from "./classify.ts"
import { fromAmqplib, toBuffer, toPublishOptions } from "./properties.ts"

const fail = (reason: AmqpError.AmqpErrorReason): Effect.Effect<never, AmqpError.AmqpError> =>
  Effect.fail(AmqpError.fromReason(reason))

const released = new AmqpError.ChannelReleased({
  message:
    "this channel was given back when its scope ended, and may be another borrower's now: use a channel inside the scope that borrowed it"
})

/** The deadlines of a lease's operations. */
export interface Deadlines {
  readonly continuationTimeout: Duration.Duration
  readonly publishTimeout: Duration.Duration
}

// The channel that delivered a message: its tag means nothing on another.
const origin = new WeakMap<Delivery, Channel>()

export class Lease implements AmqpChannel {
  readonly #deadlines: Deadlines
  #channel: Channel | undefined = undefined
  #endedBy: AmqpError.AmqpErrorReason = released

  constructor(deadlines: Deadlines) {
    this.#deadlines = deadlines
  }

  /** The channel, while this lease holds one. */
  get channel(): Channel | undefined {
    return this.#channel
  }

  /** Begins the lease. */
  begin(channel: Channel): void {
    this.#channel = channel
  }

  /** Ends the lease: takes the channel from the handle, cleaned for the next borrower or marked unfit. */
  end(): Channel | undefined {
    const channel = this.#channel
    if (channel === undefined) return undefined
    this.#channel = undefined
    // A channel that died is the better explanation of why its handle does not work.
    if (channel.closedBy !== undefined) this.#endedBy = diedOf(channel.closedBy)
    channel.clean()
    channel.wake()
    return channel
  }

  /** The channel, or why there is none to work with. */
  #usable(): Channel | AmqpError.AmqpErrorReason {
    const channel = this.#channel
    if (channel === undefined) return this.#endedBy
    const closedBy = channel.closedBy ?? channel.link.closedBy
    if (closedBy === undefined) return channel
    channel.told = true
    return diedOf(closedBy)
  }

  /** A method and its reply. */
  #request<A>(operation: string, send: (driver: Amqplib.Channel) => Promise<A>): Effect.Effect<A, AmqpError.AmqpError> {
    const timeout = this.#deadlines.continuationTimeout
    return Effect.timeoutOrElse(
      Effect.callback<A, AmqpError.AmqpError>((resume) => {
        const channel = this.#usable()
        if ("_tag" in channel) return resume(fail(channel))
        let waiting = true
        let reply: Promise<A>
        try {
          reply = send(channel.driver)
        } catch (cause) {
          return resume(fail(this.#refused(operation, channel, cause)))
        }
        channel.requests++
        reply.then(
          (value) => {
            channel.requests--
            if (!waiting) return
            waiting = false
            resume(Effect.succeed(value))
          },
          (cause) => {
            channel.requests--
            if (!waiting) return
            waiting = false
            resume(fail(this.#failed(operation, channel, cause)))
          }
        )
        // The reply would be taken for the next borrower's: this channel is nobody else's any more.
        return Effect.sync(() => {
          if (waiting) channel.unfit ??= "interrupted"
          waiting = false
        })
      }),
      {
        duration: timeout,
        orElse: () =>
          fail(
            new AmqpError.ReplyTimeout({
              message: `${operation}: the broker did not answer within ${Duration.format(timeout)} (continuationTimeout)`,
              operation
            })
          )
      }
    )
  }

  // amqplib throws before it sends when it cannot encode, and when the channel is closing.
  #refused(operation: string, channel: Channel, cause: unknown): AmqpError.AmqpErrorReason {
    const usable = this.#usable()
    if ("_tag" in usable) return usable
    if (cause instanceof TypeError || cause instanceof RangeError) {
      return new AmqpError.InvalidArgument({
        message: `${operation}: an argument cannot be encoded, nothing was sent: ${cause.message}`,
        operation,
        argument: operation,
        cause
      })
    }
    channel.unfit ??= "defect"
    return classify(cause, { operation, peer: channel.link.peer })
  }

  #failed(operation: string, channel: Channel, cause: unknown): AmqpError.AmqpErrorReason {
    if (this.#channel !== channel) return this.#endedBy
    channel.told = true
    const reason = classify(cause, { operation, peer: channel.link.peer })
    // amqplib says only that the channel ended: what ended it says more.
    if (reason._tag === "ChannelClosed" && channel.closedBy !== undefined) return diedOf(channel.closedBy)
    return reason
  }

  publish(message: Message, options?: PublishOptions): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const channel = this.#usable()
      if ("_tag" in channel) return fail(channel)
      if (channel.full || channel.link.blockedBy !== undefined) {
        return Effect.andThen(this.#untilFlowing(options), this.publish(message, options))
      }
      try {
        channel.full = !channel.driver.publish(
          message.exchange ?? "",
          message.routingKey,
          toBuffer(message.content),
          toPublishOptions(message)
        )
      } catch (cause) {
        return fail(this.#refused("basic.publish", channel, cause))
      }
      return channel.full ? this.#untilDrained : Effect.void
    })
  }

  /** Waits until `done` says so, or the channel cannot be used any more. */
  #until(done: (channel: Channel) => boolean, timedOut: () => AmqpError.AmqpErrorReason) {
    return Effect.timeoutOrElse(
      Effect.callback<void, AmqpError.AmqpError>((resume) => {
        const look = (): boolean => {
          const channel = this.#usable()
          if ("_tag" in channel) resume(fail(channel))
          else if (done(channel)) resume(Effect.void)
          else return false
          return true
        }
        const channel = this.#channel
        if (look() || channel === undefined) return undefined
        const stop = channel.watch(() => {
          if (look()) stop()
        })
        return Effect.sync(stop)
      }),
      { duration: this.#deadlines.publishTimeout, orElse: () => fail(timedOut()) }
    )
  }

  #untilFlowing(options: PublishOptions | undefined): Effect.Effect<void, AmqpError.AmqpError> {
    const blocked = () => {
      const reason = this.#channel?.link.blockedBy
      return reason === undefined ? this.#full("nothing was sent") : blockedBy(reason)
    }
    if (options?.onBlocked === "fail" && this.#channel?.link.blockedBy !== undefined) return fail(blocked())
    return this.#until((channel) => !channel.full && channel.link.blockedBy === undefined, blocked)
  }

  get #untilDrained(): Effect.Effect<void, AmqpError.AmqpError> {
    return this.#until(
      (channel) => !channel.full,
      () => this.#full("the message is in the write buffer and may still be sent")
    )
  }

  #full(state: string): AmqpError.AmqpErrorReason {
    return new AmqpError.PublishTimeout({
      message: `basic.publish: the connection took no more bytes for ${Duration.format(this.#deadlines.publishTimeout)} (publishTimeout): ${state}`,
      operation: "basic.publish"
    })
  }

  get(queue: string): Effect.Effect<Option.Option<Delivery>, AmqpError.AmqpError> {
    return this.#request("basic.get", (driver) => {
      const channel = this.#channel!
      return driver.get(queue).then((message) => {
        if (message === false) return Option.none()
        channel.unsettled.add(message.fields.deliveryTag)
        const delivery: Delivery = {
          content: message.content,
          properties: fromAmqplib(message.properties),
          exchange: message.fields.exchange,
          routingKey: message.fields.routingKey,
          redelivered: message.fields.redelivered,
          deliveryTag: message.fields.deliveryTag,
          messageCount: message.fields.messageCount
        }
        origin.set(delivery, channel)
        return Option.some(delivery)
      })
    })
  }

  ack(delivery: Delivery): Effect.Effect<void, AmqpError.AmqpError> {
    return this.#settle("basic.ack", delivery, (driver, message) => driver.ack(message))
  }

  nack(
    delivery: Delivery,
    options?: { readonly requeue?: boolean | undefined }
  ): Effect.Effect<void, AmqpError.AmqpError> {
    const requeue = options?.requeue ?? true
    return this.#settle("basic.nack", delivery, (driver, message) => driver.nack(message, false, requeue))
  }

  #settle(
    operation: string,
    delivery: Delivery,
    send: (driver: Amqplib.Channel, message: Amqplib.GetMessage) => void
  ): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const channel = this.#usable()
      if ("_tag" in channel) return fail(channel)
      if (origin.get(delivery) !== channel || !channel.unsettled.delete(delivery.deliveryTag)) {
        return fail(
          new AmqpError.DeliverySettled({
            message: `${operation}: delivery ${delivery.deliveryTag} is not this borrower's to settle: it was settled before, or its own channel has ended and the broker has requeued it`,
            operation
          })
        )
      }
      try {
        send(channel.driver, { fields: { deliveryTag: delivery.deliveryTag } } as Amqplib.GetMessage)
      } catch (cause) {
        return fail(this.#refused(operation, channel, cause))
      }
      return Effect.void
    })
  }

  exchangeDeclare(
    exchange: string,
    type: ExchangeType,
    options?: ExchangeDeclareOptions
  ): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.asVoid(
      this.#request("exchange.declare", (driver) =>
        driver.assertExchange(exchange, type, {
          durable: options?.durable ?? true,
          autoDelete: options?.autoDelete ?? false,
          internal: options?.internal ?? false,
          arguments: options?.arguments
        })
      )
    )
  }

  queueDeclare(queue: string, options?: QueueDeclareOptions): Effect.Effect<QueueDeclared, AmqpError.AmqpError> {
    return this.#request("queue.declare", (driver) =>
      driver.assertQueue(queue, {
        durable: options?.durable ?? true,
        exclusive: options?.exclusive ?? false,
        autoDelete: options?.autoDelete ?? false,
        arguments: options?.arguments
      })
    )
  }

  queueBind(
    queue: string,
    exchange: string,
    routingKey: string,
    options?: { readonly arguments?: Headers | undefined }
  ): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.asVoid(
      this.#request("queue.bind", (driver) => driver.bindQueue(queue, exchange, routingKey, options?.arguments ?? {}))
    )
  }

  queueDelete(queue: string): Effect.Effect<number, AmqpError.AmqpError> {
    return Effect.map(
      this.#request("queue.delete", (driver) => driver.deleteQueue(queue)),
      (reply) => reply.messageCount
    )
  }

  queuePurge(queue: string): Effect.Effect<number, AmqpError.AmqpError> {
    return Effect.map(
      this.#request("queue.purge", (driver) => driver.purgeQueue(queue)),
      (reply) => reply.messageCount
    )
  }
}

const blockedBy = (reason: string) =>
  new AmqpError.ConnectionBlocked({
    message: `basic.publish: nothing was sent, the broker has blocked publishers on this connection: ${reason}. Try again later.`,
    operation: "basic.publish"
  })

/** What ended the channel, as the failure of a later operation. */
const diedOf = (reason: AmqpError.AmqpErrorReason): AmqpError.AmqpErrorReason =>
  reason.severity === "connection"
    ? reason
    : new AmqpError.ChannelClosed({
        message: `the channel was closed before: ${reason.message}`,
        cause: reason,
        replyCode: "replyCode" in reason ? reason.replyCode : undefined
      })
