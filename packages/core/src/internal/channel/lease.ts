/**
 * A lease: the handle that a borrower works with, from the moment it gets a channel until its scope closes.
 *
 * The borrower keeps the handle but not the channel. A released handle has no channel, so a late use fails and cannot
 * affect the channel's next borrower.
 *
 * One class serves channels of all kinds. The types decide which of its methods a borrower sees.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import type {
  Confirmed,
  ConsumeOptions,
  Consumer,
  ConsumerStart,
  Operations,
  PublishOptions,
  QueueDeclareOptions,
  QueueDeclared,
  Returned
} from "../../model/channel.ts"
import * as AmqpError from "../../model/error.ts"
import type { Delivery, Message } from "../../model/message.ts"
import type { Channel } from "./channel.ts"
import * as Check from "../wire/declarations.ts"
import { declareWithoutLimit } from "./deliveryLimits.ts"
import { isOfStream, isUnsettled, makeDelivery, unsettledUpTo } from "./deliveries.ts"
import { asChannelClosed, ChannelHandle, type ChannelTimeouts } from "./channelHandle.ts"
import { LeaseConsumer, LeaseConsumers } from "./leaseConsumers.ts"
import { declaringQueue, type Method, methods } from "./methodTable.ts"
import { fail } from "../../model/failures.ts"
import { type Outgoing, toOutgoing } from "../wire/properties.ts"
import { checkTypeForConsume, checkTypeForGet } from "../connection/queueTypeChecks.ts"
import {
  noteRefusal,
  checkVersionForConsumerTimeout,
  checkVersionForDeclare,
  warnOfGlobalPrefetch
} from "../connection/versionChecks.ts"
import { settledByAckOnly } from "../wire/streams.ts"
import * as Tracing from "../telemetry/tracing.ts"
import { publishForbidden, obstacle, PendingConfirm, timedOutUnsent, timedOutInBuffer } from "./publishing.ts"

const released = new AmqpError.ChannelReleased({
  message:
    "this channel was returned to its pool when its scope ended, and another borrower may have it now. Use a channel only inside the scope that borrowed it."
})

/** Maximum number of unread returned messages; beyond it the oldest are dropped. */
const maxUnreadReturns = 10_000

export class Lease extends ChannelHandle implements Operations {
  /** Created with the first consumer, so that leases without consumers have no cost. */
  #consumers: LeaseConsumers | undefined = undefined
  #returns: Queue.Queue<Returned, AmqpError.AmqpError> | undefined = undefined
  /** Tags that were settled in the open transaction: a rollback makes them unsettled again. */
  #settledInTransaction: Array<number> | undefined = undefined
  /** Whether the channel has a prefetch limit for all of its consumers together (`global`). */
  #hasGlobalPrefetch = false

  constructor(timeouts: ChannelTimeouts) {
    super(timeouts, released)
  }

  // --- Beginning and end ---------------------------------------------------------------------------------------------

  get kind(): Channel["kind"] {
    return this.held?.kind ?? "regular"
  }

  /** Begins the lease on this channel. */
  begin(channel: Channel): void {
    this.held = channel
  }

  /** The number of returned messages that the borrower has not read. */
  get unreadReturns(): number {
    return this.#returns === undefined ? 0 : Queue.sizeUnsafe(this.#returns)
  }

  /** Ends the lease. Returns the channel, which is either reset for the next borrower or has a discard reason. */
  end(): Channel | undefined {
    const channel = this.held
    if (channel === undefined) return undefined
    this.held = undefined
    // A late use fails with the reason why the channel closed, if it has closed: that explains more than the release.
    if (channel.closedBy !== undefined) this.endedBy = asChannelClosed(channel.closedBy)
    channel.reset()
    channel.wake()
    this.#consumers?.end(this.endedBy)
    if (this.#returns !== undefined) {
      Queue.failCauseUnsafe(this.#returns, Cause.fail(AmqpError.fromReason(this.endedBy)))
    }
    return channel
  }

  /** Sends a method. Fails without sending if its arguments are invalid or the known type of its queue refuses it. */
  #send<A>(method: Method<A> | AmqpError.InvalidArgument): Effect.Effect<A, AmqpError.AmqpError> {
    if (Check.isInvalidArgument(method)) return fail(method)
    const { names, operation, refuses, send, table } = method
    const { queues } = this.timeouts
    const request = this.request(
      operation,
      (driver, channel) => {
        if (table !== undefined) Check.assertFits(operation, names, table, channel.link.frameMax)
        return send(driver, channel, queues)
      },
      names
    )
    if (refuses === undefined) return request
    return Effect.suspend(() => {
      const refused = refuses(queues)
      return refused === undefined ? request : fail(refused)
    })
  }

  // --- Publishing ----------------------------------------------------------------------------------------------------

  publish(message: Message, options?: PublishOptions): Effect.Effect<Confirmed, AmqpError.AmqpError>
  publish(message: Message, options?: PublishOptions): Effect.Effect<Confirmed | void, AmqpError.AmqpError> {
    return Effect.withFiber((fiber) =>
      Tracing.isTraced(fiber)
        ? Tracing.withPublishSpan(message, this.held?.link, (traced) => this.#publish(traced, options))
        : this.#publish(message, options)
    )
  }

  #publish(
    message: Message,
    options: PublishOptions | undefined
  ): Effect.Effect<Confirmed | void, AmqpError.AmqpError> {
    const settings = Check.readPublish(options)
    if (Check.isInvalidArgument(settings)) return fail(settings)
    const outgoing = toOutgoing(message, this.held?.link.frameMax)
    if (Check.isInvalidArgument(outgoing)) return fail(outgoing)
    if (settings.mandatory) outgoing.mandatory = true
    const timeout = settings.timeout ?? this.timeouts.publishTimeout
    const channel = this.usableChannel()
    if ("_tag" in channel) return fail(channel)
    if (obstacle(channel) === undefined) return this.#write(channel, message, outgoing, timeout, timeout)
    if (!settings.wait && channel.forbiddenReason !== undefined) return fail(publishForbidden(channel.forbiddenReason))
    return this.#sendLater(message, outgoing, timeout)
  }

  #sendLater(
    message: Message,
    outgoing: Outgoing,
    timeout: number
  ): Effect.Effect<Confirmed | void, AmqpError.AmqpError> {
    const { deadlines } = this.timeouts
    const dueAt = deadlines.now + timeout
    const because = () => (this.held && obstacle(this.held)) ?? "other publishes took the free capacity each time"
    const loop: Effect.Effect<Confirmed | void, AmqpError.AmqpError> = Effect.suspend(() => {
      const channel = this.usableChannel()
      if ("_tag" in channel) return fail(channel)
      const left = dueAt - deadlines.now
      if (obstacle(channel) === undefined) return this.#write(channel, message, outgoing, timeout, Math.max(1, left))
      return Effect.andThen(
        this.waitUntil(
          (channel) => obstacle(channel) === undefined,
          left,
          () => timedOutUnsent(timeout, because())
        ),
        loop
      )
    })
    return loop
  }

  #write(
    channel: Channel,
    message: Message,
    outgoing: Outgoing,
    timeout: number,
    left: number
  ): Effect.Effect<Confirmed | void, AmqpError.AmqpError> {
    const mandatory = outgoing.mandatory
    if (channel.confirms === undefined) {
      if (mandatory) this.#listenForReturns(channel)
      try {
        channel.publish(outgoing)
      } catch (cause) {
        return fail(this.sendFailure("basic.publish", channel, cause))
      }
      if (channel.kind === "transaction") channel.isAltered = true
      return channel.isWriteBufferFull
        ? this.waitUntil(
            (channel) => !channel.isWriteBufferFull,
            left,
            () => timedOutInBuffer(timeout)
          )
        : Effect.void
    }
    return Effect.callback<Confirmed, AmqpError.AmqpError>((resume) => {
      // The channel may have closed between the creation of this effect and its run.
      const usable = this.usableChannel()
      if ("_tag" in usable) return resume(fail(usable))
      try {
        channel.publish(outgoing)
      } catch (cause) {
        return resume(fail(this.sendFailure("basic.publish", channel, cause)))
      }
      const { deadlines } = this.timeouts
      const dueAt = deadlines.now + left
      const publication = new PendingConfirm(message, { mandatory, dueAt, timeout, deadlines }, resume)
      publication.begin(channel)
      return Effect.sync(() => publication.giveUp())
    })
  }

  get returns(): Queue.Dequeue<Returned, AmqpError.AmqpError> {
    if (this.#returns !== undefined) return this.#returns
    const returns = Effect.runSync(Queue.sliding<Returned, AmqpError.AmqpError>(maxUnreadReturns))
    this.#returns = returns
    const channel = this.usableChannel()
    if ("_tag" in channel) Queue.failCauseUnsafe(returns, Cause.fail(AmqpError.fromReason(channel)))
    else this.#listenForReturns(channel)
    return returns
  }

  #listenForReturns(channel: Channel): void {
    if (channel.onReturned !== undefined) return
    const returns = this.returns as Queue.Queue<Returned, AmqpError.AmqpError>
    channel.readsReturns = true
    channel.onReturned = (returned) => Queue.offerUnsafe(returns, returned)
    const stop = channel.watch(() => {
      if (channel.isOpen) return
      stop()
      const reason = channel.tooLarge ?? asChannelClosed(channel.closedBy ?? channel.link.loss)
      Queue.failCauseUnsafe(returns, Cause.fail(AmqpError.fromReason(reason)))
    })
  }

  // --- Transactions --------------------------------------------------------------------------------------------------

  get commit(): Effect.Effect<void, AmqpError.AmqpError> {
    return this.request("tx.commit", (driver, channel) =>
      driver.commit().then(() => {
        channel.isAltered = false
        this.#settledInTransaction = undefined
      })
    )
  }

  get rollback(): Effect.Effect<void, AmqpError.AmqpError> {
    return this.request("tx.rollback", (driver, channel) =>
      driver.rollback().then(() => {
        channel.isAltered = false
        for (const tag of this.#settledInTransaction ?? []) channel.unsettled.add(tag)
        this.#settledInTransaction = undefined
      })
    )
  }

  // --- Getting and settling ------------------------------------------------------------------------------------------

  get(
    queue: string,
    options?: { readonly noAck?: boolean | undefined }
  ): Effect.Effect<Option.Option<Delivery>, AmqpError.AmqpError> {
    const flags = Check.readFlags("basic.get", options, { noAck: false })
    if (Check.isInvalidArgument(flags)) return fail(flags)
    const refused = Check.checkGet("basic.get", queue)
    return this.#send(
      refused ?? {
        operation: "basic.get",
        names: [queue],
        refuses: (queues) => checkTypeForGet(queues, queue),
        send: (_driver, channel) =>
          channel
            .get(queue, flags.noAck)
            .then((message) => (message === undefined ? Option.none() : Option.some(makeDelivery(channel, message))))
      }
    )
  }

  ack(
    delivery: Delivery,
    options?: { readonly multiple?: boolean | undefined }
  ): Effect.Effect<void, AmqpError.AmqpError> {
    const flags = Check.readFlags("basic.ack", options, { multiple: false })
    if (Check.isInvalidArgument(flags)) return fail(flags)
    return this.#settle("basic.ack", delivery, flags.multiple, (channel, tag) => channel.ack(tag, flags.multiple))
  }

  nack(
    delivery: Delivery,
    options?: { readonly multiple?: boolean | undefined; readonly requeue?: boolean | undefined }
  ): Effect.Effect<void, AmqpError.AmqpError> {
    const flags = Check.readFlags("basic.nack", options, { multiple: false, requeue: true })
    if (Check.isInvalidArgument(flags)) return fail(flags)
    return this.#settle("basic.nack", delivery, flags.multiple, (channel, tag) =>
      channel.nack(tag, flags.multiple, flags.requeue)
    )
  }

  reject(
    delivery: Delivery,
    options?: { readonly requeue?: boolean | undefined }
  ): Effect.Effect<void, AmqpError.AmqpError> {
    const flags = Check.readFlags("basic.reject", options, { requeue: true })
    if (Check.isInvalidArgument(flags)) return fail(flags)
    return this.#settle("basic.reject", delivery, false, (channel, tag) => channel.reject(tag, flags.requeue))
  }

  #settle(
    operation: string,
    delivery: Delivery,
    multiple: boolean,
    send: (channel: Channel, deliveryTag: number) => void
  ): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const channel = this.usableChannel()
      if ("_tag" in channel) return fail(channel)
      if (!isUnsettled(channel, delivery)) {
        return fail(
          new AmqpError.DeliverySettled({
            message: `${operation}: expected an unsettled delivery of this channel, got delivery ${String(delivery?.deliveryTag)}: it is already settled, was taken with noAck, or belongs to a channel that has ended, whose deliveries the broker requeues. Nothing was sent.`,
            operation
          })
        )
      }
      const { deliveryTag } = delivery
      if (
        operation !== "basic.ack" &&
        (isOfStream(delivery) || (multiple && channel.hasUnsettledStreamDelivery(deliveryTag)))
      ) {
        return fail(settledByAckOnly(operation))
      }
      try {
        send(channel, deliveryTag)
      } catch (cause) {
        return fail(this.sendFailure(operation, channel, cause))
      }
      const settled = multiple ? unsettledUpTo(channel, deliveryTag) : [deliveryTag]
      for (const tag of settled) channel.unsettled.delete(tag)
      if (channel.kind === "transaction") {
        channel.isAltered = true
        ;(this.#settledInTransaction ??= []).push(...settled)
      }
      return Effect.void
    })
  }

  get recover(): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      if (this.held?.hasUnsettledStreamDelivery() === true) return fail(settledByAckOnly("basic.recover"))
      return Effect.asVoid(
        this.request("basic.recover", (driver, channel) => {
          const recovering = driver.recover()
          // From here on none of the deliveries is unsettled for the broker: an ack before the reply would close the
          // channel (406).
          channel.unsettled.clear()
          return recovering
        })
      )
    })
  }

  // --- Consuming -----------------------------------------------------------------------------------------------------

  qos(
    prefetchCount: number,
    options?: { readonly global?: boolean | undefined }
  ): Effect.Effect<void, AmqpError.AmqpError> {
    const flags = Check.readFlags("basic.qos", options, { global: false })
    if (Check.isInvalidArgument(flags)) return fail(flags)
    const refused = Check.checkPrefetch("basic.qos", prefetchCount)
    const qos = this.#send(
      refused ?? {
        operation: "basic.qos",
        names: [],
        send: (driver, channel) => {
          channel.isAltered = true
          // A prefetch of 0 means no limit.
          if (flags.global) this.#hasGlobalPrefetch = prefetchCount > 0
          return driver.qos(prefetchCount, flags.global).then(() => channel.link)
        }
      }
    )
    return Effect.flatMap(qos, (link) => (flags.global && prefetchCount > 0 ? warnOfGlobalPrefetch(link) : Effect.void))
  }

  consume(queue: string, options?: ConsumeOptions): Effect.Effect<Consumer, AmqpError.AmqpError> {
    const start = Check.readConsume(queue, options)
    if (Check.isInvalidArgument(start)) return fail(start)
    const started = this.#startConsumer(start)
    if (start.consumerTag === "") return started
    return Effect.suspend(() => this.#withConsumers.startNamed(start.consumerTag, started))
  }

  get #withConsumers(): LeaseConsumers {
    return (this.#consumers ??= new LeaseConsumers())
  }

  #startConsumer(start: ConsumerStart): Effect.Effect<Consumer, AmqpError.AmqpError> {
    return Effect.flatMap(Queue.unbounded<Delivery, AmqpError.AmqpError | Cause.Done>(), (deliveries) => {
      const { queues } = this.timeouts
      const product = this.held?.link.product ?? ""
      const refused = checkTypeForConsume(queues, start, this.#hasGlobalPrefetch, product)
      return this.#send(
        refused ?? {
          operation: "basic.consume",
          names: [start.queue, start.consumerTag],
          send: (_driver, channel) => {
            const consumer = new LeaseConsumer(channel, start, deliveries, queues)
            return channel.consume(start, consumer).then((consumerTag) => {
              if (this.held === channel) this.#withConsumers.started(consumerTag, consumer)
              return { consumerTag, deliveries }
            })
          }
        }
      )
    })
  }

  cancel(consumerTag: string): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const consumer = this.#consumers?.get(consumerTag)
      if (consumer === undefined) {
        const usable = this.usableChannel()
        if ("_tag" in usable) return fail(usable)
        return fail(
          new AmqpError.InvalidArgument({
            message: `basic.cancel: consumerTag: expected the tag of a consumer of this channel, got ${JSON.stringify(consumerTag)}. Nothing was sent.`,
            operation: "basic.cancel",
            argument: "consumerTag"
          })
        )
      }
      const done = Effect.sync(() => this.#consumers?.cancelled(consumerTag, consumer))
      if (consumer.hasEnded) return done
      return Effect.andThen(
        this.request("basic.cancel", (_driver, channel) => channel.cancel(consumerTag)),
        done
      )
    })
  }

  flow(active: boolean): Effect.Effect<boolean, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const product = this.held?.link.product ?? ""
      if (typeof active !== "boolean" || (!active && product.startsWith("RabbitMQ"))) {
        return fail(
          new AmqpError.InvalidArgument({
            message: `channel.flow: active: expected true${typeof active === "boolean" ? ` (${product} closes the connection on false; limit deliveries with qos, or cancel the consumer)` : " or false"}, got ${String(active)}. Nothing was sent.`,
            operation: "channel.flow",
            argument: "active"
          })
        )
      }
      return this.request("channel.flow", (driver, channel) => {
        if (!active) channel.isAltered = true
        return driver.flow(active)
      })
    })
  }

  // --- Exchanges and queues: see `methodTable` -----------------------------------------------------------------------

  exchangeDeclare(...args: Parameters<Operations["exchangeDeclare"]>) {
    return this.#send(methods.exchangeDeclare(...args))
  }

  exchangeDeclarePassive(...args: Parameters<Operations["exchangeDeclarePassive"]>) {
    return this.#send(methods.exchangeDeclarePassive(...args))
  }

  exchangeDelete(...args: Parameters<Operations["exchangeDelete"]>) {
    return this.#send(methods.exchangeDelete(...args))
  }

  exchangeBind(...args: Parameters<Operations["exchangeBind"]>) {
    return this.#send(methods.exchangeBind(...args))
  }

  exchangeUnbind(...args: Parameters<Operations["exchangeUnbind"]>) {
    return this.#send(methods.exchangeUnbind(...args))
  }

  queueDeclarePassive(...args: Parameters<Operations["queueDeclarePassive"]>) {
    return this.#send(methods.queueDeclarePassive(...args))
  }

  queueBind(...args: Parameters<Operations["queueBind"]>) {
    return this.#send(methods.queueBind(...args))
  }

  queueUnbind(...args: Parameters<Operations["queueUnbind"]>) {
    return this.#send(methods.queueUnbind(...args))
  }

  queuePurge(...args: Parameters<Operations["queuePurge"]>) {
    return this.#send(methods.queuePurge(...args))
  }

  queueDelete(...args: Parameters<Operations["queueDelete"]>) {
    return this.#send(methods.queueDelete(...args))
  }

  queueDeclare(queue: string, options?: QueueDeclareOptions): Effect.Effect<QueueDeclared, AmqpError.AmqpError> {
    const checked = Check.readQueueDeclare(options)
    if (Check.isInvalidArgument(checked)) return fail(checked)
    const refused = Check.checkQueueOrEmpty("queue.declare", queue)
    if (refused !== undefined) return fail(refused)
    const { queues } = this.timeouts
    return Effect.suspend(() => {
      const channel = this.usableChannel()
      if ("_tag" in channel) return this.#send(declaringQueue(queue, checked))
      const { link } = channel
      const declare = (declaration: typeof checked) =>
        Effect.tapError(this.#send(declaringQueue(queue, declaration)), ({ reason }) =>
          Effect.sync(() => noteRefusal(link.product, queues, reason))
        )
      const refused =
        checkVersionForDeclare(link.product, queues, checked) ??
        checkVersionForConsumerTimeout(link.product, queue, options)
      if (refused !== undefined) return fail(refused)
      return options?.deliveryLimit === "default"
        ? declare(checked)
        : declareWithoutLimit(this.timeouts, link, queue, checked, declare)
    })
  }
}
