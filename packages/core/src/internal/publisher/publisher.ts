/**
 * Confirmed publishing by many fibers over few channels.
 *
 * A message takes a place among those in flight, is written to a channel, and gives its place back when the broker has
 * answered for it or the channel has died. What finds no place, or no channel that takes it, waits in line. Nothing here
 * is a fiber a message: each is an entry in a line, in the confirms of a channel, and in the deadlines.
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
import { directReplyTo } from "../wire/directReply.ts"
import * as Check from "../wire/declarations.ts"
import { fail } from "../../model/failures.ts"
import { type Links, linksOf } from "../connection/links.ts"
import { toPublish, withoutContent } from "../wire/properties.ts"
import { Histogram } from "../metrics/histogram.ts"
import { Attempt, type Outcome, type Owner } from "./attempt.ts"
import { FlowState, flowing } from "./flow.ts"
import type { Lane } from "./lane.ts"
import { Lanes } from "./lanes.ts"
import { Backlog, Load } from "../waiting/backlog.ts"
import { readOptions, type Settings } from "./options.ts"
import { forbidden, obstacle, timedOutBefore, timedOutUnconfirmed } from "../channel/publishing.ts"
import { SizeLimit } from "../channel/sizeLimit.ts"
import type { Fork } from "../waiting/fork.ts"
import * as Logging from "../telemetry/logging.ts"
import * as Tracing from "../telemetry/tracing.ts"

const operation = "basic.publish"

const confirmed = Effect.succeed<Confirmed>({ _tag: "Confirmed" })

const publisherClosed = new AmqpError.PoolClosed({
  message: `${operation}: nothing was sent: the publisher is closed, the scope that made it has ended`,
  operation
})

const closedOver = new AmqpError.PoolClosed({
  message: "the publisher was closed, and the confirm did not come within shutdownTimeout",
  operation
})

/** Over such a message the broker closes the channel, if nobody consumes replies on it (406). */
const noReplies = new AmqpError.InvalidArgument({
  message: `${operation}: replyTo: wants a queue, got ${directReplyTo}, to which only a channel that consumes from it may have replies sent: a borrowed one (AmqpChannel), or AmqpRpc. Nothing was sent.`,
  operation,
  argument: "replyTo"
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

/** What is thrown for what cannot be encoded, before anything is written; undefined for anything else. */
const encodingRefused = (cause: unknown): AmqpError.InvalidArgument | undefined =>
  cause instanceof TypeError || cause instanceof RangeError
    ? new AmqpError.InvalidArgument({
        message: `${operation}: message: cannot be encoded, nothing was sent: ${cause.message}`,
        operation,
        argument: "message",
        cause
      })
    : undefined

// A long text that has to wait is made into bytes when it is sent: else offering many would be copying them all for
// nothing. In characters.
const longText = 4096

/** The size in bytes of a content that is long and well-formed text; undefined for any other. */
const sizeOfLongText = (message: Message): number | undefined => {
  const content: unknown = typeof message === "object" && message !== null ? message.content : undefined
  if (typeof content !== "string" || content.length < longText || !content.isWellFormed()) return undefined
  return Buffer.byteLength(content)
}

export class Publisher implements Owner {
  readonly settings: Settings
  readonly lanes: Lanes
  readonly #connection: AmqpConnection["Service"]
  readonly links: Links
  readonly #backlog: Backlog<Attempt>
  readonly #inFlight: Load
  readonly #deadlines: Deadlines
  readonly #flow: FlowState
  readonly #publishTimeout: number
  readonly #limit: SizeLimit
  readonly #run: Fork
  /** What is interrupted at the end: openings and timers. */
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
  /** How long it took from the call until the outcome was known. */
  readonly durations: Readonly<Record<Counted, Histogram>> = {
    confirmed: new Histogram(),
    nacked: new Histogram(),
    returned: new Histogram(),
    unknown: new Histogram(),
    timedOut: new Histogram(),
    forbidden: new Histogram(),
    refused: new Histogram()
  }
  #turn = 0
  /** Of those in flight, how many somebody listens to. */
  #awaited = 0
  /** Of those in line, how many want to be sent away when the broker takes nothing. */
  #impatient = 0
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
    const links = linksOf(connection)
    const fork = this.#fork
    this.settings = settings
    this.#limit = new SizeLimit(settings.maxMessageSize)
    this.#backlog = new Backlog("messages", { maxCount: Infinity, maxBytes: settings.maxWaitingBytes })
    this.#inFlight = new Load({ maxCount: settings.maxInFlight, maxBytes: settings.maxInFlightBytes })
    this.#connection = connection
    this.links = links
    this.#run = run
    this.#deadlines = new Deadlines(clock, fork)
    this.lanes = new Lanes({
      count: settings.channels,
      links,
      timeouts: { open: connection.config.continuationTimeout, close: connection.config.closeTimeout },
      deadlines: this.#deadlines,
      fork,
      events: { changed: this.changed, lost: this.#lost, failed: this.#cannotOpen }
    })
    this.#flow = new FlowState({ ref: flow, links, lanes: this.lanes.all, clock, fork })
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
    return this.links.current()
  }

  // --- What comes in -------------------------------------------------------------------------------------------------

  readonly publish = (message: Message, options?: PublishOptions): Effect.Effect<Confirmed, AmqpError.AmqpError> =>
    Effect.callback<Confirmed, AmqpError.AmqpError>((resume) => {
      // Here, not in an effect around this one: who does not trace pays nothing for it.
      const fiber = Fiber.getCurrent()
      if (fiber === undefined || !Tracing.isTraced(fiber)) return this.#publish(message, options, resume)
      const traced = (message: Message) =>
        Effect.callback<Confirmed, AmqpError.AmqpError>((resume) => this.#publish(message, options, resume))
      return resume(Tracing.publishing(message, this.links.current(), traced))
    })

  #publish(
    message: Message,
    options: PublishOptions | undefined,
    resume: (effect: Effect.Effect<Confirmed, AmqpError.AmqpError>) => void
  ): Effect.Effect<void> | void {
    const settings = Check.readPublish(options)
    if (Check.isRefused(settings)) return resume(fail(settings))
    const attempt = this.submit(message, settings, undefined, (failure) =>
      resume(failure === undefined ? confirmed : fail(failure))
    )
    return attempt === undefined ? undefined : Effect.sync(() => this.giveUp(attempt))
  }

  /**
   * Publishes a message and tells `outcome` what became of it, maybe before this returns. Messages of one `lane` are sent
   * in the order of these calls. Undefined if the message was refused.
   */
  submit(
    message: Message,
    settings: Check.PublishSettings,
    lane: Lane<Attempt> | undefined,
    outcome: Outcome
  ): Attempt | undefined {
    const link = this.links.current()
    const free =
      this.#backlog.load.count === 0 && this.#inFlight.count < this.#inFlight.maxCount
        ? this.lanes.ready(lane)
        : undefined
    const size = free === undefined ? sizeOfLongText(message) : undefined
    const outgoing = toPublish(size === undefined ? message : withoutContent(message), link?.frameMax)
    const refused = Check.isRefused(outgoing)
      ? outgoing
      : this.#closed
        ? publisherClosed
        : outgoing.replyTo === directReplyTo
          ? noReplies
          : this.#limit.refuses(size ?? outgoing.content.byteLength, link?.product)
    if (Check.isRefused(outgoing) || refused !== undefined) {
      this.#counts.refused++
      return void outcome(refused)
    }
    if (settings.mandatory) outgoing.mandatory = true
    const timeout = settings.timeout ?? this.#publishTimeout
    const startedAt = this.#deadlines.exact
    const dueAt = Math.floor(startedAt) + timeout
    const times = { turn: ++this.#turn, startedAt, dueAt, timeout, frameMax: link?.frameMax }
    const attempt = new Attempt(this, message, outgoing, size, settings, times, lane, outcome)
    if (free !== undefined && this.#inFlight.takes(attempt.size) && this.#send(free, attempt)) {
      if (attempt.state === "sent") this.#deadlines.add(attempt)
      return attempt
    }
    const forbids = this.#forbids(lane)
    const turnedAway = forbids !== undefined && !attempt.waits ? forbidden(forbids) : this.#crowded(attempt, forbids)
    if (turnedAway !== undefined) {
      this.#tell(attempt, turnedAway)
      return attempt
    }
    attempt.settleDown()
    this.#enter(attempt, false)
    this.#deadlines.add(attempt)
    this.lanes.ensure(lane)
    // Another lane's messages may be all that waits.
    if (attempt.before === undefined) this.#pump()
    return attempt
  }

  /** For a publish that nobody waits for any more. If it was sent, it keeps its place until the broker has answered. */
  giveUp(attempt: Attempt): void {
    if (attempt.state === "told") return
    this.#deadlines.delete(attempt)
    const wasSent = attempt.state === "sent"
    attempt.state = "told"
    if (wasSent) return this.#listensNoMore()
    this.#leave(attempt)
    // It may have been what the next in line could not get past.
    return this.#pump()
  }

  // --- What goes out -------------------------------------------------------------------------------------------------

  /** Whether it was dealt with: sent, or told that it cannot be. */
  #send(lane: Lane<Attempt>, attempt: Attempt): boolean {
    const channel = lane.channel!
    try {
      channel.publish(attempt.outgoing)
    } catch (cause) {
      const refused = encodingRefused(cause)
      if (refused === undefined) {
        // The channel is closing: it is replaced, and the message goes with the next.
        channel.unfit ??= "defect"
        return false
      }
      this.#tell(attempt, refused)
      return true
    }
    attempt.sent()
    lane.sent++
    this.#inFlight.add(attempt.size)
    this.#awaited++
    channel.confirms!.published(attempt)
    if (channel.full) this.#flow.refresh()
    if (lane.load > 1) this.lanes.widen()
    // Last: it may bring the next message.
    attempt.onSent?.()
    return true
  }

  /** Sends what waits, as far as there is room. */
  #pump(): void {
    if (this.#backlog.load.count > 0) this.#backlog.drain(this.#sendNext)
  }

  readonly #sendNext = (): boolean => {
    let next = this.#backlog.line.first
    let lane = next === undefined ? undefined : this.lanes.ready(undefined)
    if (lane === undefined) next = undefined
    for (const one of this.lanes.all) {
      const { first } = one.line
      if (first === undefined || (next !== undefined && next.turn < first.turn) || !one.isReadyInOrder) continue
      next = first
      lane = one
    }
    if (next === undefined || lane === undefined || !this.#inFlight.takes(next.size)) return false
    this.#leave(next)
    const refused = this.#limit.refusesOn(lane.channel!.link, next)
    if (refused !== undefined) this.#tell(next, refused)
    else if (this.#send(lane, next)) this.#backlog.sent()
    else this.#enter(next, true)
    return true
  }

  #enter(attempt: Attempt, asFirst: boolean): void {
    if (asFirst) this.#backlog.addFirst(attempt, attempt.lane?.line)
    else this.#backlog.add(attempt, attempt.lane?.line)
    if (!attempt.waits) this.#impatient++
  }

  #leave(attempt: Attempt): void {
    this.#backlog.remove(attempt)
    if (!attempt.waits) this.#impatient--
  }

  /** Ends the wait of those in line for which there is a reason to. */
  #dismiss(reasonFor: (attempt: Attempt) => AmqpError.AmqpErrorReason | undefined): void {
    for (const line of [this.#backlog.line, ...this.lanes.all.map((lane) => lane.line)]) {
      for (const attempt of line) {
        // Whoever was told first may have made others leave.
        if (attempt.line === undefined) continue
        const reason = reasonFor(attempt)
        if (reason === undefined) continue
        this.#leave(attempt)
        this.#tell(attempt, reason)
      }
    }
  }

  // --- What becomes of it --------------------------------------------------------------------------------------------

  landed(attempt: Attempt, failure: AmqpError.AmqpErrorReason | undefined): void {
    this.#inFlight.remove(attempt.size)
    if (attempt.state === "sent") this.#tell(attempt, failure)
    this.#pump()
  }

  expired(attempt: Attempt): void {
    if (attempt.state === "sent") return this.#tell(attempt, timedOutUnconfirmed(attempt.timeout))
    const because = this.#because(attempt)
    this.#leave(attempt)
    this.#tell(attempt, timedOutBefore(attempt.timeout, because))
    return this.#pump()
  }

  #tell(attempt: Attempt, failure: AmqpError.AmqpErrorReason | undefined): void {
    const wasSent = attempt.state === "sent"
    attempt.state = "told"
    this.#deadlines.delete(attempt)
    const took = this.#deadlines.exact - attempt.startedAt
    if (failure === undefined) {
      this.#counts.confirmed++
      this.durations.confirmed.record(took)
    } else {
      const outcome = outcomeOf(failure)
      this.#counts[outcome]++
      this.durations[outcome].record(took)
    }
    attempt.outcome(failure)
    if (wasSent) this.#listensNoMore()
  }

  #listensNoMore(): void {
    this.#awaited--
    if (this.#awaited === 0 && this.#drained !== undefined) Deferred.doneUnsafe(this.#drained, Effect.void)
  }

  /** What keeps messages from this lane, or from any, for nobody knows how long; undefined if nothing does. */
  #forbids(only: Lane<Attempt> | undefined): string | undefined {
    const link = this.links.current()
    const { value: state } = this.#connection.state
    if (link === undefined) {
      // Closed for good, it has a reason of its own, which opening a channel fails with.
      if (state._tag === "Closed") return undefined
      return state._tag !== "Open" && state.reason !== undefined
        ? `there is no connection: ${state.reason.message}`
        : "there is no connection"
    }
    const { forbids } = link
    if (forbids !== undefined) return forbids
    let because: string | undefined
    for (const lane of only === undefined ? this.lanes.all : [only]) {
      if (!lane.isOpen) continue
      because = lane.channel!.forbids
      if (because === undefined) return undefined
    }
    return because
  }

  /**
   * Why there is no room in line, while nothing is sent: something forbids it, or the broker has taken and confirmed nothing
   * for a second. A sequence has one message there, and is never turned away.
   */
  #crowded(attempt: Attempt, forbids: string | undefined): AmqpError.PoolExhausted | undefined {
    if (attempt.lane !== undefined || this.#backlog.load.takes(attempt.size)) return undefined
    if (forbids === undefined && !this.#backlog.isStalled(this.#deadlines.now)) return undefined
    const because = forbids ?? this.#because(attempt)
    return new AmqpError.PoolExhausted({
      message: `${operation}: nothing was sent: ${because}; ${this.#backlog.full()}`,
      operation
    })
  }

  #because(attempt: Attempt): string {
    const because = this.#forbids(attempt.lane)
    if (because !== undefined) return because
    const open = (attempt.lane === undefined ? this.lanes.all : [attempt.lane]).find((lane) => lane.isOpen)
    if (open === undefined) {
      return this.links.preparations.areDone
        ? "the broker has not opened a channel yet"
        : "the topology is being declared again on a new connection"
    }
    if (open.channel!.unfit === "refused")
      return "its channel is being replaced, because the broker refused messages on it"
    if (this.#inFlight.takes(attempt.size)) return obstacle(open.channel!) ?? "others were always before it"
    const { bytes, count, maxBytes, maxCount } = this.#inFlight
    return `${count} messages with ${bytes} bytes wait for their confirms already (maxInFlight ${maxCount}, maxInFlightBytes ${maxBytes})`
  }

  // --- Channels ------------------------------------------------------------------------------------------------------

  /** To be called when something that decides about waiting has changed. */
  readonly changed = (): void => {
    this.#flow.refresh()
    if (this.#impatient > 0) {
      this.#dismiss((attempt) => {
        const because = attempt.waits ? undefined : this.#forbids(attempt.lane)
        return because === undefined ? undefined : forbidden(because)
      })
    }
    this.#pump()
  }

  readonly #lost = (lane: Lane<Attempt>): void => {
    this.#flow.refresh()
    // At once, so that the next publish does not wait for it; but one that was of no use may stay away.
    if (lane.sent > 0 || lane.line.size > 0) this.lanes.reopen(lane)
    if (this.#backlog.line.size > 0) this.lanes.ensure(undefined)
    this.#pump()
  }

  readonly #cannotOpen = (lane: Lane<Attempt>, reason: AmqpError.AmqpErrorReason, alone: boolean): void =>
    // They have nothing to wait for. The next publish tries again.
    this.#dismiss((attempt) => (attempt.lane === lane || (alone && attempt.lane === undefined) ? reason : undefined))

  // --- The end, and counts -------------------------------------------------------------------------------------------

  /** Within the bounds of a shutdown. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.#closed = true
    this.lanes.stop()
    this.#dismiss(() => publisherClosed)
    return Effect.gen({ self: this }, function* () {
      const { shutdown } = this.links
      if (this.#awaited > 0) {
        this.#drained = Deferred.makeUnsafe()
        const drained = yield* Effect.timeoutOption(Deferred.await(this.#drained), shutdown.answering())
        if (drained._tag === "None") {
          yield* Effect.logWarning("AMQP publisher closed over messages that were not confirmed").pipe(
            Effect.annotateLogs({ messages: this.#awaited, ...Logging.ofConnection(this.#connection.config) })
          )
        }
      }
      yield* Fiber.interruptAll(Array.from(this.#background))
      const channels = this.lanes.all.flatMap((lane) => lane.channels)
      // Not when the channels have closed: that may be never.
      for (const channel of channels) channel.confirms?.closed(closedOver, false)
      const timeout = Duration.millis(shutdown.closingOf(this.links.current()))
      yield* Effect.forEach(channels, (channel) => channel.close(timeout), {
        concurrency: "unbounded",
        discard: true
      })
    })
  })

  readonly stats: Effect.Effect<Stats> = Effect.sync(() => ({
    inFlight: this.#inFlight.count,
    waiting: this.#backlog.load.count,
    channels: this.lanes.open,
    ...this.#counts
  }))
}

/** The inside of an `AmqpPublisher`. */
export class PublisherInside extends Inside<Publisher> {}

/** The publisher behind a service; undefined for one that was made by hand. */
export const publisherOf = (service: AmqpPublisher["Service"]): Publisher | undefined => PublisherInside.of(service)

/** The same, if that is what publishes. A copy with a `publish` of its own wants to see each message: none may pass it by. */
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
    if (Check.isRefused(settings)) return yield* fail(settings)
    const flow = yield* SubscriptionRef.make<Flow>(flowing)
    const clock = yield* Clock.Clock
    const run = Effect.runForkWith(yield* Effect.context())
    const publisher = new Publisher({ connection, settings, flow, clock, run })
    yield* Effect.addFinalizer(() => linksOf(connection).shutdown.during(publisher.close))
    // A connection may be blocked, or away, without a channel to hear of it.
    const changes = Stream.merge(SubscriptionRef.changes(connection.flow), SubscriptionRef.changes(connection.state))
    yield* Effect.forkScoped(Stream.runForEach(changes, () => Effect.sync(() => publisher.changed())))
    const { publish, stats } = publisher
    return { publish, flow, stats, [InsideId]: new PublisherInside(publisher) }
  },
  (make, connection) => Effect.annotateLogs(make, Logging.ofConnection(connection.config))
)
