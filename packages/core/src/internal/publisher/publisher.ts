/**
 * Confirmed publishing by many fibers over few channels.
 *
 * A message waits in a wait queue until the limits in flight allow it and a channel can take it. Then it is written to
 * the channel, and counts as in flight until the broker has confirmed or rejected it or the channel has closed. There
 * is no fiber per message: a pending publish is an entry in a wait queue or in the confirms of a channel, and in the
 * deadlines.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { Confirmed, PublishOptions } from "../../model/channel.ts"
import type { AmqpConnection } from "../../model/connection.ts"
import * as AmqpError from "../../model/error.ts"
import { Inside, InsideId } from "../../model/inside.ts"
import type { Message } from "../../model/message.ts"
import type { AmqpPublisher, Flow, Options, Stats } from "../../model/publisher.ts"
import type { Link } from "../connection/link.ts"
import { Deadlines } from "../waiting/deadlines.ts"
import { counted, isOrAre, withoutPeriod } from "../waiting/phrases.ts"
import { isPseudoQueue } from "../wire/directReply.ts"
import * as Check from "../wire/declarations.ts"
import { fail } from "../../model/failures.ts"
import { type ConnectionInternals, connectionInternals } from "../connection/connectionInternals.ts"
import { toOutgoing, withoutContent } from "../wire/properties.ts"
import { Histogram } from "../metrics/histogram.ts"
import { PendingPublish, type Outcome, type PublishOwner } from "./pendingPublish.ts"
import { FlowState, flowing } from "./flow.ts"
import type { PublisherChannel } from "./publisherChannel.ts"
import { PublisherChannels } from "./publisherChannels.ts"
import { Backlog, Load } from "../waiting/backlog.ts"
import { noReplies, readOptions, type Settings } from "./options.ts"
import { publishForbidden, obstacle, timedOutUnsent, timedOutUnconfirmed } from "../channel/publishing.ts"
import { SizeLimit } from "../channel/sizeLimit.ts"
import type { Fork } from "../waiting/fork.ts"
import * as Logging from "../telemetry/logging.ts"
import * as Tracing from "../telemetry/tracing.ts"

const operation = "basic.publish"

const confirmed = Effect.succeed<Confirmed>({ _tag: "Confirmed" })

const publisherClosed = new AmqpError.PoolClosed({
  message: `${operation}: the publisher is closed, because the scope that made it has ended. Nothing was sent.`,
  operation
})

const closedUnconfirmed = new AmqpError.PoolClosed({
  message: `${operation}: the publisher was closed, and the broker did not confirm the message within shutdownTimeout`,
  operation
})

type Counted = Exclude<keyof Stats, "inFlight" | "waiting" | "channels">

const outcomeOf = (failure: AmqpError.AmqpErrorReason): Counted => {
  switch (failure._tag) {
    case "PublishNacked":
      return "nacked"
    case "PublishReturned":
      return "returned"
    case "PublishUnknown":
      return "unknown"
    case "PublishTimeout":
      return "timedOut"
    case "PublishForbidden":
      return "forbidden"
    default:
      return "refused"
  }
}

/** The error for an exception of encoding, which is thrown before anything is written; undefined for any other. */
const encodingRefused = (cause: unknown): AmqpError.InvalidArgument | undefined =>
  cause instanceof TypeError || cause instanceof RangeError
    ? new AmqpError.InvalidArgument({
        message: `${operation}: the message cannot be encoded: ${withoutPeriod(cause.message)}. Nothing was sent.`,
        operation,
        argument: "message",
        cause
      })
    : undefined

// A text that is at least this long, in UTF-16 code units, and that has to wait, is encoded only when it is sent. If it
// were encoded when it is submitted, the encoded copy would be dropped again while it waits.
const longTextLength = 4096

/** The size in bytes of a content that is a long and well-formed text; undefined for any other content. */
const sizeOfLongText = (message: Message): number | undefined => {
  const content: unknown = typeof message === "object" && message !== null ? message.content : undefined
  if (typeof content !== "string" || content.length < longTextLength || !content.isWellFormed()) return undefined
  return Buffer.byteLength(content)
}

export class Publisher implements PublishOwner {
  readonly settings: Settings
  readonly channels: PublisherChannels
  readonly #connection: AmqpConnection["Service"]
  readonly internals: ConnectionInternals
  readonly #backlog: Backlog<PendingPublish>
  readonly #inFlight: Load
  readonly #deadlines: Deadlines
  readonly #flow: FlowState
  readonly #publishTimeout: number
  readonly #limit: SizeLimit
  readonly #run: Fork
  /** Fibers that are interrupted at the end: openings and timers. */
  readonly #background = new Set<Fiber.Fiber<void>>()
  readonly #counts: Record<Counted, number> = {
    confirmed: 0,
    nacked: 0,
    returned: 0,
    unknown: 0,
    timedOut: 0,
    forbidden: 0,
    refused: 0
  }
  /** Times from the call of `publish` to the report of the outcome, per outcome. */
  readonly durations: Readonly<Record<Counted, Histogram>> = {
    confirmed: new Histogram(),
    nacked: new Histogram(),
    returned: new Histogram(),
    unknown: new Histogram(),
    timedOut: new Histogram(),
    forbidden: new Histogram(),
    refused: new Histogram()
  }
  #submissions = 0
  /** The number of messages in flight whose callers still wait for the outcome. */
  #awaited = 0
  /** The number of waiting messages that fail when the broker forbids publishing (`onBlocked: "fail"`). */
  #failingWhenBlocked = 0
  #closed = false
  #drained: Deferred.Deferred<void> | undefined = undefined

  constructor(options: {
    readonly connection: AmqpConnection["Service"]
    readonly settings: Settings
    readonly flow: SubscriptionRef.SubscriptionRef<Flow>
    readonly clock: Clock.Clock
    readonly run: Fork
  }) {
    const { clock, connection, flow, run, settings } = options
    const internals = connectionInternals(connection)
    const fork = this.#fork
    this.settings = settings
    this.#limit = new SizeLimit(settings.maxMessageSize)
    this.#backlog = new Backlog("message", { maxCount: Infinity, maxBytes: settings.maxWaitingBytes })
    this.#inFlight = new Load({ maxCount: settings.maxInFlight, maxBytes: settings.maxInFlightBytes })
    this.#connection = connection
    this.internals = internals
    this.#run = run
    this.#deadlines = new Deadlines(clock, fork)
    this.channels = new PublisherChannels({
      count: settings.channels,
      internals,
      timeouts: { open: connection.config.continuationTimeout, close: connection.config.closeTimeout },
      deadlines: this.#deadlines,
      fork,
      events: { changed: this.changed, lost: this.#lost, failed: this.#cannotOpen }
    })
    this.#flow = new FlowState({ ref: flow, internals, channels: this.channels.all, clock, fork })
    this.#publishTimeout = Duration.toMillis(connection.config.publishTimeout)
  }

  readonly #fork: Fork = (effect) => {
    const fiber = this.#run(effect)
    if (fiber.pollUnsafe() === undefined) {
      this.#background.add(fiber)
      fiber.addObserver(() => this.#background.delete(fiber))
    }
    return fiber
  }

  /** The live link, if there is one. */
  get link(): Link | undefined {
    return this.internals.currentLink()
  }

  // --- Accepting messages --------------------------------------------------------------------------------------------

  readonly publish = (message: Message, options?: PublishOptions): Effect.Effect<Confirmed, AmqpError.AmqpError> =>
    Effect.callback<Confirmed, AmqpError.AmqpError>((resume) => {
      // Tracing is checked here and not in an effect around this one, so that untraced callers have no cost.
      const fiber = Fiber.getCurrent()
      if (fiber === undefined || !Tracing.isTraced(fiber)) return this.#publish(message, options, resume)
      const traced = (message: Message) =>
        Effect.callback<Confirmed, AmqpError.AmqpError>((resume) => this.#publish(message, options, resume))
      return resume(Tracing.withPublishSpan(message, this.internals.currentLink(), traced))
    })

  #publish(
    message: Message,
    options: PublishOptions | undefined,
    resume: (effect: Effect.Effect<Confirmed, AmqpError.AmqpError>) => void
  ): Effect.Effect<void> | void {
    const settings = Check.readPublish(options)
    if (Check.isInvalidArgument(settings)) return resume(fail(settings))
    const pending = this.submit(message, settings, undefined, (failure) =>
      resume(failure === undefined ? confirmed : fail(failure))
    )
    return pending === undefined ? undefined : Effect.sync(() => this.giveUp(pending))
  }

  /**
   * Publishes a message and calls `outcome` with the result, possibly before this returns. Messages for one
   * `publisherChannel` are sent in the order of these calls. Returns undefined if the message was refused.
   */
  submit(
    message: Message,
    settings: Check.PublishSettings,
    publisherChannel: PublisherChannel<PendingPublish> | undefined,
    outcome: Outcome
  ): PendingPublish | undefined {
    const link = this.internals.currentLink()
    const free =
      this.#backlog.load.count === 0 && this.#inFlight.count < this.#inFlight.maxCount
        ? this.channels.findReady(publisherChannel)
        : undefined
    const size = free === undefined ? sizeOfLongText(message) : undefined
    const outgoing = toOutgoing(size === undefined ? message : withoutContent(message), link?.frameMax)
    const refused = Check.isInvalidArgument(outgoing)
      ? outgoing
      : this.#closed
        ? publisherClosed
        : isPseudoQueue(outgoing.replyTo)
          ? noReplies(outgoing.replyTo)
          : this.#limit.refuses(size ?? outgoing.content.byteLength, link?.product)
    if (Check.isInvalidArgument(outgoing) || refused !== undefined) {
      this.#counts.refused++
      return void outcome(refused)
    }
    if (settings.mandatory) outgoing.mandatory = true
    const timeout = settings.timeout ?? this.#publishTimeout
    const startedAt = this.#deadlines.nowExact
    const dueAt = Math.floor(startedAt) + timeout
    const times = { submissionNumber: ++this.#submissions, startedAt, dueAt, timeout, frameMax: link?.frameMax }
    const pending = new PendingPublish(this, message, outgoing, size, settings, times, publisherChannel, outcome)
    if (free !== undefined && this.#inFlight.hasRoomFor(pending.size) && this.#send(free, pending)) {
      if (pending.state === "sent") this.#deadlines.add(pending)
      return pending
    }
    const forbiddenReason = this.#forbiddenReason(publisherChannel)
    const rejection =
      forbiddenReason !== undefined && !pending.waitsWhenBlocked
        ? publishForbidden(forbiddenReason)
        : this.#backlogFull(pending, forbiddenReason)
    if (rejection !== undefined) {
      this.#report(pending, rejection)
      return pending
    }
    pending.dropEncodedText()
    this.#enter(pending, false)
    this.#deadlines.add(pending)
    this.channels.ensure(publisherChannel)
    // All other waiting messages may be for other publisher channels, so this one may be next.
    if (pending.previous === undefined) this.#pump()
    return pending
  }

  /** Gives up a publish whose caller has stopped waiting. If it was sent, it is in flight until the broker answers. */
  giveUp(pending: PendingPublish): void {
    if (pending.state === "settled") return
    this.#deadlines.delete(pending)
    const wasSent = pending.state === "sent"
    pending.state = "settled"
    if (wasSent) return this.#stopAwaiting()
    this.#leave(pending)
    // The next message may have waited for this one.
    return this.#pump()
  }

  // --- Sending -------------------------------------------------------------------------------------------------------

  /** Sends a message. Returns whether it is done: sent, or failed because it cannot be encoded. */
  #send(publisherChannel: PublisherChannel<PendingPublish>, pending: PendingPublish): boolean {
    const channel = publisherChannel.channel!
    try {
      channel.publish(pending.outgoing)
    } catch (cause) {
      const refused = encodingRefused(cause)
      if (refused === undefined) {
        // The channel is closing. It is replaced, and the message is sent on the next channel.
        channel.discardReason ??= "defect"
        return false
      }
      this.#report(pending, refused)
      return true
    }
    pending.sent()
    publisherChannel.sent++
    this.#inFlight.add(pending.size)
    this.#awaited++
    channel.confirms!.published(pending)
    if (channel.isWriteBufferFull) this.#flow.refresh()
    if (publisherChannel.load > 1) this.channels.openAnother()
    // This call must be the last statement, because the callback may submit the next message.
    pending.onSent?.()
    return true
  }

  /** Sends waiting messages as far as there is room. */
  #pump(): void {
    if (this.#backlog.load.count > 0) this.#backlog.drain(this.#sendNext)
  }

  readonly #sendNext = (): boolean => {
    let next = this.#backlog.queue.first
    let publisherChannel = next === undefined ? undefined : this.channels.findReady(undefined)
    if (publisherChannel === undefined) next = undefined
    for (const candidate of this.channels.all) {
      const { first } = candidate.waitQueue
      if (
        first === undefined ||
        (next !== undefined && next.submissionNumber < first.submissionNumber) ||
        !candidate.isReadyInOrder
      )
        continue
      next = first
      publisherChannel = candidate
    }
    if (next === undefined || publisherChannel === undefined || !this.#inFlight.hasRoomFor(next.size)) return false
    this.#leave(next)
    const refused = this.#limit.refusesOn(publisherChannel.channel!.link, next)
    if (refused !== undefined) this.#report(next, refused)
    else if (this.#send(publisherChannel, next)) this.#backlog.sent()
    else this.#enter(next, true)
    return true
  }

  #enter(pending: PendingPublish, asFirst: boolean): void {
    if (asFirst) this.#backlog.addFirst(pending, pending.publisherChannel?.waitQueue)
    else this.#backlog.add(pending, pending.publisherChannel?.waitQueue)
    if (!pending.waitsWhenBlocked) this.#failingWhenBlocked++
  }

  #leave(pending: PendingPublish): void {
    this.#backlog.remove(pending)
    if (!pending.waitsWhenBlocked) this.#failingWhenBlocked--
  }

  /** Fails the waiting messages for which `reasonFor` returns a reason. */
  #failWaiting(reasonFor: (pending: PendingPublish) => AmqpError.AmqpErrorReason | undefined): void {
    for (const queue of [
      this.#backlog.queue,
      ...this.channels.all.map((publisherChannel) => publisherChannel.waitQueue)
    ]) {
      for (const pending of queue) {
        // Reporting an earlier outcome may have removed this one from the queue.
        if (pending.waitQueue === undefined) continue
        const reason = reasonFor(pending)
        if (reason === undefined) continue
        this.#leave(pending)
        this.#report(pending, reason)
      }
    }
  }

  // --- Outcomes ------------------------------------------------------------------------------------------------------

  settled(pending: PendingPublish, failure: AmqpError.AmqpErrorReason | undefined): void {
    this.#inFlight.remove(pending.size)
    if (pending.state === "sent") this.#report(pending, failure)
    this.#pump()
  }

  expired(pending: PendingPublish): void {
    if (pending.state === "sent") return this.#report(pending, timedOutUnconfirmed(pending.timeout))
    const because = this.#waitReason(pending)
    this.#leave(pending)
    this.#report(pending, timedOutUnsent(pending.timeout, because))
    return this.#pump()
  }

  #report(pending: PendingPublish, failure: AmqpError.AmqpErrorReason | undefined): void {
    const wasSent = pending.state === "sent"
    pending.state = "settled"
    this.#deadlines.delete(pending)
    const took = this.#deadlines.nowExact - pending.startedAt
    if (failure === undefined) {
      this.#counts.confirmed++
      this.durations.confirmed.record(took)
    } else {
      const outcome = outcomeOf(failure)
      this.#counts[outcome]++
      this.durations[outcome].record(took)
    }
    pending.outcome(failure)
    if (wasSent) this.#stopAwaiting()
  }

  #stopAwaiting(): void {
    this.#awaited--
    if (this.#awaited === 0 && this.#drained !== undefined) Deferred.doneUnsafe(this.#drained, Effect.void)
  }

  /**
   * Why the broker or the connection prevents publishing, on the channel `only` or on all channels, until it changes;
   * undefined if nothing prevents it.
   */
  #forbiddenReason(only: PublisherChannel<PendingPublish> | undefined): string | undefined {
    const link = this.internals.currentLink()
    const { value: state } = this.#connection.state
    if (link === undefined) {
      // A connection that is closed for good makes the opening of a channel fail with its own reason.
      if (state._tag === "Closed") return undefined
      return state._tag !== "Open" && state.reason !== undefined
        ? `there is no connection: ${state.reason.message}`
        : "there is no connection"
    }
    if (link.publishForbiddenReason !== undefined) return link.publishForbiddenReason
    let because: string | undefined
    for (const publisherChannel of only === undefined ? this.channels.all : [only]) {
      if (!publisherChannel.isOpen) continue
      because = publisherChannel.channel!.forbiddenReason
      if (because === undefined) return undefined
    }
    return because
  }

  /**
   * Why a message cannot enter the backlog: the backlog is full, and either publishing is forbidden or nothing was sent
   * from it for a second. A message of a sequence always enters, because a sequence has at most one message in the
   * backlog.
   */
  #backlogFull(pending: PendingPublish, forbiddenReason: string | undefined): AmqpError.PoolExhausted | undefined {
    if (pending.publisherChannel !== undefined || this.#backlog.load.hasRoomFor(pending.size)) return undefined
    if (forbiddenReason === undefined && !this.#backlog.isStalled(this.#deadlines.now)) return undefined
    const because = forbiddenReason ?? this.#waitReason(pending)
    return new AmqpError.PoolExhausted({
      message: `${operation}: ${because}; ${this.#backlog.fullMessage()}. Nothing was sent.`,
      operation
    })
  }

  #waitReason(pending: PendingPublish): string {
    const because = this.#forbiddenReason(pending.publisherChannel)
    if (because !== undefined) return because
    const open = (pending.publisherChannel === undefined ? this.channels.all : [pending.publisherChannel]).find(
      (publisherChannel) => publisherChannel.isOpen
    )
    if (open === undefined) {
      return this.internals.preparations.areDone
        ? "the broker has not opened a channel yet"
        : "the topology is being declared on a new connection"
    }
    if (open.channel!.discardReason === "refused")
      return "its channel is being replaced, because the broker refused messages on it"
    if (this.#inFlight.hasRoomFor(pending.size))
      return obstacle(open.channel!) ?? "other messages took the free capacity each time"
    const { bytes, count, maxBytes, maxCount } = this.#inFlight
    return `${counted(count, "message")} with ${counted(bytes, "byte")} ${isOrAre(count)} not confirmed yet (maxInFlight ${maxCount}, maxInFlightBytes ${maxBytes})`
  }

  // --- Channels ------------------------------------------------------------------------------------------------------

  /** Checks all waits again. Must be called after every change that can end a wait. */
  readonly changed = (): void => {
    this.#flow.refresh()
    if (this.#failingWhenBlocked > 0) {
      this.#failWaiting((pending) => {
        const because = pending.waitsWhenBlocked ? undefined : this.#forbiddenReason(pending.publisherChannel)
        return because === undefined ? undefined : publishForbidden(because)
      })
    }
    this.#pump()
  }

  readonly #lost = (publisherChannel: PublisherChannel<PendingPublish>): void => {
    this.#flow.refresh()
    // The channel is reopened at once, so that the next publish need not wait for it. A channel that was not used is
    // not reopened.
    if (publisherChannel.sent > 0 || publisherChannel.waitQueue.size > 0) this.channels.reopen(publisherChannel)
    if (this.#backlog.queue.size > 0) this.channels.ensure(undefined)
    this.#pump()
  }

  readonly #cannotOpen = (
    publisherChannel: PublisherChannel<PendingPublish>,
    reason: AmqpError.AmqpErrorReason,
    isOnlyChannel: boolean
  ): void =>
    // The messages that only this channel could send have no channel to wait for. The next publish tries to open one
    // again.
    this.#failWaiting((pending) =>
      pending.publisherChannel === publisherChannel || (isOnlyChannel && pending.publisherChannel === undefined)
        ? reason
        : undefined
    )

  // --- Closing, and counts -------------------------------------------------------------------------------------------

  /** Closes the publisher within the time that is left of the shutdown. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.#closed = true
    this.channels.stop()
    this.#failWaiting(() => publisherClosed)
    return Effect.gen({ self: this }, function* () {
      const { shutdown } = this.internals
      if (this.#awaited > 0) {
        this.#drained = Deferred.makeUnsafe()
        const drained = yield* Effect.timeoutOption(Deferred.await(this.#drained), shutdown.answerTimeLeft())
        if (drained._tag === "None") {
          yield* Effect.logWarning("AMQP publisher closed while messages were still unconfirmed").pipe(
            Effect.annotateLogs({ messages: this.#awaited, ...Logging.connectionAnnotations(this.#connection.config) })
          )
        }
      }
      yield* Fiber.interruptAll(Array.from(this.#background))
      const channels = this.channels.all.flatMap((publisherChannel) => publisherChannel.channels)
      // The outcomes are reported before the channels are closed, since a close may never be answered.
      for (const channel of channels) channel.confirms?.closed(closedUnconfirmed, false)
      const timeout = Duration.millis(shutdown.closeTimeLeftOf(this.internals.currentLink()))
      yield* Effect.forEach(channels, (channel) => channel.close(timeout), {
        concurrency: "unbounded",
        discard: true
      })
    })
  })

  readonly stats: Effect.Effect<Stats> = Effect.sync(() => ({
    inFlight: this.#inFlight.count,
    waiting: this.#backlog.load.count,
    channels: this.channels.open,
    ...this.#counts
  }))
}

/** The internal part of an `AmqpPublisher`. */
export class PublisherInside extends Inside<Publisher> {}

/** The publisher of a service; undefined for a service that was written by hand. */
export const publisherOf = (service: AmqpPublisher["Service"]): Publisher | undefined => PublisherInside.of(service)

/**
 * The publisher of a service, if the service's `publish` is the publisher's own. If a copy replaces `publish`, every
 * message must go through that function, so its publisher must not be used directly.
 */
export const ownPublisherOf = (service: AmqpPublisher["Service"]): Publisher | undefined => {
  const publisher = publisherOf(service)
  return publisher?.publish === service.publish ? publisher : undefined
}

export const make = Effect.fnUntraced(
  function* (
    connection: AmqpConnection["Service"],
    options: Options | undefined
  ): Effect.fn.Return<AmqpPublisher["Service"], AmqpError.AmqpError, Scope.Scope> {
    const settings = readOptions(options)
    if (Check.isInvalidArgument(settings)) return yield* fail(settings)
    const flow = yield* SubscriptionRef.make<Flow>(flowing)
    const clock = yield* Clock.Clock
    const run = Effect.runForkWith(yield* Effect.context())
    const publisher = new Publisher({ connection, settings, flow, clock, run })
    yield* Effect.addFinalizer(() => connectionInternals(connection).shutdown.during(publisher.close))
    // The publisher watches the connection itself, because a channel reports a blocked or lost connection only while it
    // is open.
    const changes = Stream.merge(SubscriptionRef.changes(connection.flow), SubscriptionRef.changes(connection.state))
    yield* Effect.forkScoped(Stream.runForEach(changes, () => Effect.sync(() => publisher.changed())))
    const { publish, stats } = publisher
    return { publish, flow, stats, [InsideId]: new PublisherInside(publisher) }
  },
  (make, connection) => Effect.annotateLogs(make, Logging.connectionAnnotations(connection.config))
)
