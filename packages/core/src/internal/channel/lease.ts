/**
 * One borrow: the handle that a borrower works with, from the moment it has a channel until its scope ends.
 *
 * The handle is the borrower's; the channel is not. Once released, the handle knows no channel any more, so a late use
 * fails instead of touching the next borrower's.
 *
 * One class serves channels of all kinds; which of its methods a borrower sees is the business of the types.
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
import { isOfStream, isUnsettled, makeDelivery, upTo } from "./deliveries.ts"
import { diedOf, Handle, type Terms } from "./handle.ts"
import { LeaseConsumer, LeaseConsumers } from "./leaseConsumers.ts"
import { declaringQueue, type Method, methods } from "./methodTable.ts"
import { fail } from "../../model/failures.ts"
import { type Outgoing, toPublish } from "../wire/properties.ts"
import { refusesConsume, refusesGet } from "../connection/refusedByType.ts"
import {
  noteRefusal,
  refusesConsumerTimeout,
  refusesDeclare,
  warnOfGlobalPrefetch
} from "../connection/refusedByVersion.ts"
import { settledByAckOnly } from "../wire/streams.ts"
import * as Tracing from "../telemetry/tracing.ts"
import { forbidden, obstacle, Publication, timedOutBefore, timedOutInBuffer } from "./publishing.ts"

const released = new AmqpError.ChannelReleased({
  message:
    "this channel was given back when its scope ended, and may be another borrower's now: use a channel inside the scope that borrowed it"
})

// Returned messages that nobody has read: the oldest give way.
const mostReturns = 10_000

export class Lease extends Handle implements Operations {
  /** Made with the first: a borrow that consumes nothing pays nothing. */
  #consumers: LeaseConsumers | undefined = undefined
  #returns: Queue.Queue<Returned, AmqpError.AmqpError> | undefined = undefined
  /** What the open transaction has settled: a rollback takes it back. */
  #settledInTransaction: Array<number> | undefined = undefined
  /** Whether it has a prefetch for all consumers together. */
  #hasGlobalPrefetch = false

  constructor(terms: Terms) {
    super(terms, released)
  }

  // --- Its beginning and end -----------------------------------------------------------------------------------------

  get kind(): Channel["kind"] {
    return this.held?.kind ?? "regular"
  }

  /** Begins the lease. */
  begin(channel: Channel): void {
    this.held = channel
  }

  /** Mandatory messages that came back and were not looked at. */
  get unreadReturns(): number {
    return this.#returns === undefined ? 0 : Queue.sizeUnsafe(this.#returns)
  }

  /** Ends the lease: takes the channel from the handle, cleaned for the next borrower or marked unfit. */
  end(): Channel | undefined {
    const channel = this.held
    if (channel === undefined) return undefined
    this.held = undefined
    // A channel that died is the better explanation of why its handle does not work.
    if (channel.closedBy !== undefined) this.endedBy = diedOf(channel.closedBy)
    channel.clean()
    channel.wake()
    this.#consumers?.end(this.endedBy)
    if (this.#returns !== undefined) {
      Queue.failCauseUnsafe(this.#returns, Cause.fail(AmqpError.fromReason(this.endedBy)))
    }
    return channel
  }

  /** Sends a method, unless its arguments were refused, or a queue of a known type refuses it. */
  #send<A>(method: Method<A> | AmqpError.InvalidArgument): Effect.Effect<A, AmqpError.AmqpError> {
    if (Check.isRefused(method)) return fail(method)
    const { names, operation, refuses, send, table } = method
    const { queues } = this.terms
    const request = this.request(
      operation,
      (driver, channel) => {
        if (table !== undefined) Check.mustFit(operation, names, table, channel.link.frameMax)
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
        ? Tracing.publishing(message, this.held?.link, (traced) => this.#publish(traced, options))
        : this.#publish(message, options)
    )
  }

  #publish(
    message: Message,
    options: PublishOptions | undefined
  ): Effect.Effect<Confirmed | void, AmqpError.AmqpError> {
    const settings = Check.readPublish(options)
    if (Check.isRefused(settings)) return fail(settings)
    const outgoing = toPublish(message, this.held?.link.frameMax)
    if (Check.isRefused(outgoing)) return fail(outgoing)
    if (settings.mandatory) outgoing.mandatory = true
    const timeout = settings.timeout ?? this.terms.publishTimeout
    const channel = this.usable()
    if ("_tag" in channel) return fail(channel)
    if (obstacle(channel) === undefined) return this.#write(channel, message, outgoing, timeout, timeout)
    if (!settings.wait && channel.forbids !== undefined) return fail(forbidden(channel.forbids))
    return this.#sendLater(message, outgoing, timeout)
  }

  #sendLater(
    message: Message,
    outgoing: Outgoing,
    timeout: number
  ): Effect.Effect<Confirmed | void, AmqpError.AmqpError> {
    const { deadlines } = this.terms
    const dueAt = deadlines.now + timeout
    const because = () => (this.held && obstacle(this.held)) ?? "others were always before it"
    const loop: Effect.Effect<Confirmed | void, AmqpError.AmqpError> = Effect.suspend(() => {
      const channel = this.usable()
      if ("_tag" in channel) return fail(channel)
      const left = dueAt - deadlines.now
      if (obstacle(channel) === undefined) return this.#write(channel, message, outgoing, timeout, Math.max(1, left))
      return Effect.andThen(
        this.until(
          (channel) => obstacle(channel) === undefined,
          left,
          () => timedOutBefore(timeout, because())
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
        return fail(this.refused("basic.publish", channel, cause))
      }
      if (channel.kind === "transaction") channel.altered = true
      return channel.full
        ? this.until(
            (channel) => !channel.full,
            left,
            () => timedOutInBuffer(timeout)
          )
        : Effect.void
    }
    return Effect.callback<Confirmed, AmqpError.AmqpError>((resume) => {
      // Looked at again: between the making of this effect and its run the channel may have ended.
      const usable = this.usable()
      if ("_tag" in usable) return resume(fail(usable))
      try {
        channel.publish(outgoing)
      } catch (cause) {
        return resume(fail(this.refused("basic.publish", channel, cause)))
      }
      const { deadlines } = this.terms
      const dueAt = deadlines.now + left
      const publication = new Publication(message, { mandatory, dueAt, timeout, deadlines }, resume)
      publication.begin(channel)
      return Effect.sync(() => publication.giveUp())
    })
  }

  get returns(): Queue.Dequeue<Returned, AmqpError.AmqpError> {
    if (this.#returns !== undefined) return this.#returns
    const returns = Effect.runSync(Queue.sliding<Returned, AmqpError.AmqpError>(mostReturns))
    this.#returns = returns
    const channel = this.usable()
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
      const reason = channel.refused ?? diedOf(channel.closedBy ?? channel.link.loss)
      Queue.failCauseUnsafe(returns, Cause.fail(AmqpError.fromReason(reason)))
    })
  }

  // --- Transactions --------------------------------------------------------------------------------------------------

  get commit(): Effect.Effect<void, AmqpError.AmqpError> {
    return this.request("tx.commit", (driver, channel) =>
      driver.commit().then(() => {
        channel.altered = false
        this.#settledInTransaction = undefined
      })
    )
  }

  get rollback(): Effect.Effect<void, AmqpError.AmqpError> {
    return this.request("tx.rollback", (driver, channel) =>
      driver.rollback().then(() => {
        channel.altered = false
        for (const tag of this.#settledInTransaction ?? []) channel.unsettled.add(tag)
        this.#settledInTransaction = undefined
      })
    )
  }

  // --- Taking and settling -------------------------------------------------------------------------------------------

  get(
    queue: string,
    options?: { readonly noAck?: boolean | undefined }
  ): Effect.Effect<Option.Option<Delivery>, AmqpError.AmqpError> {
    const flags = Check.readFlags("basic.get", options, { noAck: false })
    if (Check.isRefused(flags)) return fail(flags)
    const refused = Check.checkGet("basic.get", queue)
    return this.#send(
      refused ?? {
        operation: "basic.get",
        names: [queue],
        refuses: (queues) => refusesGet(queues, queue),
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
    if (Check.isRefused(flags)) return fail(flags)
    return this.#settle("basic.ack", delivery, flags.multiple, (channel, tag) => channel.ack(tag, flags.multiple))
  }

  nack(
    delivery: Delivery,
    options?: { readonly multiple?: boolean | undefined; readonly requeue?: boolean | undefined }
  ): Effect.Effect<void, AmqpError.AmqpError> {
    const flags = Check.readFlags("basic.nack", options, { multiple: false, requeue: true })
    if (Check.isRefused(flags)) return fail(flags)
    return this.#settle("basic.nack", delivery, flags.multiple, (channel, tag) =>
      channel.nack(tag, flags.multiple, flags.requeue)
    )
  }

  reject(
    delivery: Delivery,
    options?: { readonly requeue?: boolean | undefined }
  ): Effect.Effect<void, AmqpError.AmqpError> {
    const flags = Check.readFlags("basic.reject", options, { requeue: true })
    if (Check.isRefused(flags)) return fail(flags)
    return this.#settle("basic.reject", delivery, false, (channel, tag) => channel.reject(tag, flags.requeue))
  }

  #settle(
    operation: string,
    delivery: Delivery,
    multiple: boolean,
    send: (channel: Channel, deliveryTag: number) => void
  ): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      const channel = this.usable()
      if ("_tag" in channel) return fail(channel)
      if (!isUnsettled(channel, delivery)) {
        return fail(
          new AmqpError.DeliverySettled({
            message: `${operation}: delivery ${String(delivery?.deliveryTag)} is not this borrower's to settle: it was settled before or needs no settling, or its own channel has ended and the broker has requeued it`,
            operation
          })
        )
      }
      const { deliveryTag } = delivery
      if (operation !== "basic.ack" && (isOfStream(delivery) || (multiple && channel.holdsOfStream(deliveryTag)))) {
        return fail(settledByAckOnly(operation))
      }
      try {
        send(channel, deliveryTag)
      } catch (cause) {
        return fail(this.refused(operation, channel, cause))
      }
      const settled = multiple ? upTo(channel, deliveryTag) : [deliveryTag]
      for (const tag of settled) channel.unsettled.delete(tag)
      if (channel.kind === "transaction") {
        channel.altered = true
        ;(this.#settledInTransaction ??= []).push(...settled)
      }
      return Effect.void
    })
  }

  get recover(): Effect.Effect<void, AmqpError.AmqpError> {
    return Effect.suspend(() => {
      if (this.held?.holdsOfStream() === true) return fail(settledByAckOnly("basic.recover"))
      return Effect.asVoid(
        this.request("basic.recover", (driver, channel) => {
          const recovering = driver.recover()
          // From here on the broker knows none of them: an ack in between would close the channel (406).
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
    if (Check.isRefused(flags)) return fail(flags)
    const refused = Check.checkPrefetch("basic.qos", prefetchCount)
    const qos = this.#send(
      refused ?? {
        operation: "basic.qos",
        names: [],
        send: (driver, channel) => {
          channel.altered = true
          // Zero: no limit.
          if (flags.global) this.#hasGlobalPrefetch = prefetchCount > 0
          return driver.qos(prefetchCount, flags.global).then(() => channel.link)
        }
      }
    )
    return Effect.flatMap(qos, (link) => (flags.global && prefetchCount > 0 ? warnOfGlobalPrefetch(link) : Effect.void))
  }

  consume(queue: string, options?: ConsumeOptions): Effect.Effect<Consumer, AmqpError.AmqpError> {
    const start = Check.readConsume(queue, options)
    if (Check.isRefused(start)) return fail(start)
    const started = this.#startConsumer(start)
    if (start.consumerTag === "") return started
    return Effect.suspend(() => this.#withConsumers.startNamed(start.consumerTag, started))
  }

  get #withConsumers(): LeaseConsumers {
    return (this.#consumers ??= new LeaseConsumers())
  }

  #startConsumer(start: ConsumerStart): Effect.Effect<Consumer, AmqpError.AmqpError> {
    return Effect.flatMap(Queue.unbounded<Delivery, AmqpError.AmqpError | Cause.Done>(), (deliveries) => {
      const { queues } = this.terms
      const product = this.held?.link.product ?? ""
      const refused = refusesConsume(queues, start, this.#hasGlobalPrefetch, product)
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
        const usable = this.usable()
        if ("_tag" in usable) return fail(usable)
        return fail(
          new AmqpError.InvalidArgument({
            message: `basic.cancel: consumerTag: wants that of a consumer of this channel, got ${JSON.stringify(consumerTag)}. Nothing was sent.`,
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
            message: `channel.flow: active: wants true${typeof active === "boolean" ? ` (${product} closes the connection when it is asked to stop; limit deliveries by qos, or cancel the consumer)` : " or false"}, got ${String(active)}. Nothing was sent.`,
            operation: "channel.flow",
            argument: "active"
          })
        )
      }
      return this.request("channel.flow", (driver, channel) => {
        if (!active) channel.altered = true
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
    if (Check.isRefused(checked)) return fail(checked)
    const refused = Check.checkNewQueue("queue.declare", queue)
    if (refused !== undefined) return fail(refused)
    const { queues } = this.terms
    return Effect.suspend(() => {
      const channel = this.usable()
      if ("_tag" in channel) return this.#send(declaringQueue(queue, checked))
      const { link } = channel
      const declare = (declaration: typeof checked) =>
        Effect.tapError(this.#send(declaringQueue(queue, declaration)), ({ reason }) =>
          Effect.sync(() => noteRefusal(link.product, queues, reason))
        )
      const refused =
        refusesDeclare(link.product, queues, checked) ?? refusesConsumerTimeout(link.product, queue, options)
      if (refused !== undefined) return fail(refused)
      return options?.deliveryLimit === "default"
        ? declare(checked)
        : declareWithoutLimit(this.terms, link, queue, checked, declare)
    })
  }
}
