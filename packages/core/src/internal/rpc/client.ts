/**
 * Requests of many fibers over one channel: the backlog of requests that are not sent yet, the channel and its
 * replacement, the counts.
 *
 * A request needs no fiber of its own, only entries in a few tables. Events determine what happens to it: a reply, a
 * return, a confirm, the end of the channel, or the single timer of all deadlines.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Tracer from "effect/Tracer"
import * as Crypto from "node:crypto"
import type { AmqpConnection } from "../../model/connection.ts"
import type { Baggage } from "../../model/baggage.ts"
import * as AmqpError from "../../model/error.ts"
import { Inside, InsideId } from "../../model/inside.ts"
import type { AmqpRpc, CallOptions, Procedure, Stats } from "../../model/rpc.ts"
import { Deadlines } from "../waiting/deadlines.ts"
import { isInvalidArgument } from "../wire/optionTable.ts"
import { fail } from "../../model/failures.ts"
import { type ChannelTimeouts } from "../channel/channelHandle.ts"
import { type ConnectionInternals, connectionInternals } from "../connection/connectionInternals.ts"
import { Histogram } from "../metrics/histogram.ts"
import { toOutgoing } from "../wire/properties.ts"
import { publishForbidden } from "../channel/publishing.ts"
import { SizeLimit } from "../channel/sizeLimit.ts"
import { correlationIdOf } from "./correlation.ts"
import { Call, type CallOwner, type CallOutcome } from "./call.ts"
import { type CallSettings, type Settings, readCallOptions } from "./options.ts"
import { type Codecs, codecsOf } from "./procedure.ts"
import { RpcChannel, type RpcChannelOwner } from "./rpcChannel.ts"
import { directReplyTo } from "../wire/directReply.ts"
import { readReply, type Reply } from "./reply.ts"
import { Backlog, type Bounds } from "../waiting/backlog.ts"
import type { Fork } from "../waiting/fork.ts"
import * as Tracing from "../telemetry/tracing.ts"
import { injectContext } from "../telemetry/tracingContext.ts"

const clientClosed = new AmqpError.PoolClosed({
  message: "AmqpRpc: the client is closed, because its scope has closed. Nothing was sent."
})

const closedByUs = new AmqpError.ChannelClosed({ message: "the client was closed, because its scope has closed" })

class Client implements CallOwner, RpcChannelOwner {
  readonly #internals: ConnectionInternals
  readonly #limit: SizeLimit
  readonly #timeouts: ChannelTimeouts
  readonly #fork: Fork
  /** Requests that are not sent yet, in FIFO order. */
  readonly #backlog: Backlog<Call>
  /** The bounds of requests in flight. */
  readonly #inFlight: Bounds
  #channel: RpcChannel | undefined = undefined
  #isOpening = false
  #hasEnded = false
  #answered: Deferred.Deferred<void> | undefined = undefined
  // A prefix that only this client uses, so that a misrouted reply matches no other client's request.
  readonly #prefix = Crypto.randomBytes(6).toString("base64url")
  #made = 0
  /** The number of calls per outcome. */
  readonly outcomes: Record<CallOutcome, number> = { replied: 0, failed: 0, timedOut: 0, givenUp: 0 }
  /** How long replies took to arrive. */
  readonly durations = new Histogram()
  #unclaimed = 0

  constructor(connection: AmqpConnection["Service"], settings: Settings, clock: Clock.Clock, fork: Fork) {
    const { continuationTimeout, publishTimeout } = connection.config
    this.#internals = connectionInternals(connection)
    this.#limit = new SizeLimit(settings.maxMessageSize)
    this.#backlog = new Backlog("request", { maxCount: settings.maxWaiting, maxBytes: settings.maxWaitingBytes })
    this.#inFlight = { maxCount: settings.maxInFlight, maxBytes: settings.maxInFlightBytes }
    this.#fork = fork
    this.#timeouts = {
      continuationTimeout,
      publishTimeout: Duration.toMillis(publishTimeout),
      deadlines: new Deadlines(clock, fork),
      queues: this.#internals.queues
    }
  }

  get stats(): Stats {
    return {
      inFlight: this.#channel?.waiting ?? 0,
      waiting: this.#backlog.load.count,
      replied: this.outcomes.replied,
      timedOut: this.outcomes.timedOut,
      unclaimed: this.#unclaimed
    }
  }

  // --- Requests ------------------------------------------------------------------------------------------------------

  readonly call = <P extends Schema.Constraint, S extends Schema.Constraint, E extends Schema.Constraint>(
    procedure: Procedure<P, S, E>,
    payload: P["Type"],
    options?: CallOptions
  ): Effect.Effect<
    S["Type"],
    E["Type"] | AmqpError.AmqpError,
    P["EncodingServices"] | S["DecodingServices"] | E["DecodingServices"]
  > =>
    Effect.withFiber((fiber) => {
      const codecs = codecsOf(procedure)
      if (isInvalidArgument(codecs)) return fail(codecs)
      const settings = readCallOptions(options)
      if (isInvalidArgument(settings)) return fail(settings)
      const correlationId = correlationIdOf(this.#prefix, ++this.#made)
      return Tracing.isTraced(fiber)
        ? Tracing.withCallSpan(procedure, correlationId, this.#internals.currentLink(), (span, baggage) =>
            this.#call(procedure, codecs, payload, settings, correlationId, { span, baggage })
          )
        : this.#call(procedure, codecs, payload, settings, correlationId, undefined)
    })

  #call<P extends Schema.Constraint, S extends Schema.Constraint, E extends Schema.Constraint>(
    { exchange, name, routingKey }: Procedure<P, S, E>,
    codecs: Codecs<P, S, E>,
    payload: P["Type"],
    settings: CallSettings,
    correlationId: string,
    traced: { readonly span: Tracer.Span; readonly baggage: Baggage } | undefined
  ): Effect.Effect<
    S["Type"],
    E["Type"] | AmqpError.AmqpError,
    P["EncodingServices"] | S["DecodingServices"] | E["DecodingServices"]
  > {
    const envelope = {
      exchange,
      routingKey,
      // The request is worthless after a restart of the broker: by then the client has another reply address.
      persistent: false,
      priority: settings.priority,
      headers: settings.headers,
      type: name,
      correlationId,
      replyTo: directReplyTo
    }
    const sent = Effect.flatMap(codecs.payload.encode(payload, envelope), (encoded) => {
      const link = this.#internals.currentLink()
      const message =
        traced === undefined ? encoded : injectContext(encoded, traced.span, traced.baggage, link?.frameMax)
      const outgoing = toOutgoing(message, link?.frameMax, name)
      if (isInvalidArgument(outgoing)) return fail(outgoing)
      const tooLarge = this.#limit.refuses(outgoing.content.length, link?.product)
      if (tooLarge !== undefined) return fail(tooLarge)
      traced?.span.attribute("messaging.message.body.size", outgoing.content.length)
      outgoing.mandatory = true
      return this.#send({ name, message, outgoing, correlationId, frameMax: link?.frameMax }, settings)
    })
    return Effect.flatMap(sent, (reply) => readReply(name, codecs, reply))
  }

  #send(
    request: Pick<Call, "name" | "message" | "outgoing" | "correlationId" | "frameMax">,
    { expires, onBlocked, timeout }: CallSettings
  ): Effect.Effect<Reply, AmqpError.AmqpError> {
    return Effect.callback<Reply, AmqpError.AmqpError>((resume) => {
      const refused = this.#refuses(onBlocked === "fail", request.outgoing.content.length)
      if (refused !== undefined) return resume(fail(refused))
      const { deadlines } = this.#timeouts
      const startedAt = deadlines.nowExact
      const dueAt = Math.floor(startedAt) + timeout
      const call = new Call(
        { ...request, timeout, startedAt, dueAt, expires, failsWhenBlocked: onBlocked === "fail" },
        this,
        resume
      )
      deadlines.add(call)
      // Most calls are sent at once.
      const { isDraining, load } = this.#backlog
      if (load.count > 0 || isDraining || !this.#trySend(call)) {
        this.#backlog.add(call)
        this.#pump()
      }
      return Effect.sync(() => call.giveUp())
    })
  }

  #refuses(failsWhenBlocked: boolean, size: number): AmqpError.AmqpErrorReason | undefined {
    if (this.#hasEnded) return clientClosed
    if (failsWhenBlocked) {
      const forbids = this.#channel?.forbiddenReason ?? this.#internals.currentLink()?.publishForbiddenReason
      if (forbids !== undefined) return publishForbidden(forbids)
    }
    // The requests that a channel will accept as soon as it opens do not count as waiting.
    const more = this.#channel === undefined ? this.#inFlight : undefined
    if (this.#channel?.takes(size) === true || this.#backlog.load.hasRoomFor(size, more)) return undefined
    return new AmqpError.PoolExhausted({
      message: `AmqpRpc: ${this.waitReason()}; ${this.#backlog.fullMessage(more)}. Nothing was sent.`
    })
  }

  /** Sends the requests in the backlog that can be sent now. */
  readonly #pump = (): void => {
    const { isDraining, load } = this.#backlog
    if (isDraining || load.count === 0) return
    const channel = this.#channel
    if (channel === undefined || !channel.isOpen) return this.#open()
    this.#backlog.drain(this.#sendNext)
    if (this.#channel === undefined && load.count > 0) this.#open()
  }

  readonly #sendNext = (): boolean => {
    const call = this.#backlog.queue.first!
    if (!this.#trySend(call)) return false
    this.#backlog.remove(call)
    return true
  }

  /** Returns whether the call was sent or has failed. If not, it waits, or the channel has ended. */
  #trySend(call: Call): boolean {
    const channel = this.#channel
    if (channel === undefined || !channel.takes(call.size)) return false
    // The broker may be a different one than when the request was accepted.
    const refused = this.#limit.refusesOn(channel.link, call)
    if (refused === undefined) return channel.send(call)
    call.fail(refused)
    return true
  }

  callEnded(call: Call, how: CallOutcome): void {
    this.outcomes[how]++
    if (how === "replied") this.durations.record(this.#timeouts.deadlines.nowExact - call.startedAt)
    if (how !== "timedOut") this.#timeouts.deadlines.delete(call)
    if (call.channel === undefined) this.#backlog.remove(call)
    else call.channel.forget(call)
    if (this.#answered !== undefined && (this.#channel?.waiting ?? 0) === 0) {
      Deferred.doneUnsafe(this.#answered, Effect.void)
    }
    this.#pump()
  }

  waitReason(): string {
    const channel = this.#channel
    if (channel === undefined || !channel.isOpen) {
      return this.#internals.currentLink() === undefined ? "there is no connection" : "the channel is not open yet"
    }
    return channel.fullReason
  }

  confirmed(): void {
    this.#pump()
  }

  // --- The channel ---------------------------------------------------------------------------------------------------

  unclaimed(): void {
    this.#unclaimed++
  }

  readonly changed = (): void => {
    const forbids = this.#channel?.forbiddenReason
    if (forbids === undefined) return this.#pump()
    const waiting = Array.from(this.#backlog.queue).filter((call) => call.failsWhenBlocked)
    if (waiting.length === 0) return
    const reason = publishForbidden(forbids)
    for (const call of waiting) call.fail(reason)
  }

  closed(channel: RpcChannel): void {
    if (this.#channel === channel) this.#channel = undefined
    this.#pump()
  }

  #open(): void {
    if (this.#isOpening || this.#hasEnded) return
    this.#isOpening = true
    this.#fork(this.#opening)
  }

  // Yields first: a channel learns of the end of its connection before the connection itself does.
  readonly #opening: Effect.Effect<void> = Effect.suspend(() =>
    Effect.andThen(
      Effect.yieldNow,
      Effect.matchEffect(this.#internals.nextLink, {
        onFailure: (error) => this.#notOpened(error),
        onSuccess: (link) =>
          Effect.matchEffect(RpcChannel.open(link, this.#timeouts, this, this.#inFlight, this.#opened), {
            // Nothing was sent, and the connection is being re-established: the requests in the backlog wait for it, as
            // new ones do.
            onFailure: (error) =>
              error.severity === "connection" && error.isRetryable && this.#backlog.load.count > 0
                ? this.#opening
                : this.#notOpened(error),
            onSuccess: () => Effect.void
          })
      })
    )
  )

  readonly #opened = (channel: RpcChannel): void => {
    this.#isOpening = false
    if (this.#hasEnded) return channel.abandon()
    this.#channel = channel
    return this.changed()
  }

  #notOpened(error: AmqpError.AmqpError): Effect.Effect<void> {
    return Effect.sync(() => {
      const failed = Array.from(this.#backlog.queue)
      // Before the calls fail: a caller may call again at once, which starts another opening.
      for (const call of failed) this.#backlog.remove(call)
      this.#isOpening = false
      for (const call of failed) call.fail(error.reason)
    })
  }

  /**
   * Fails the requests in the backlog, waits for the replies to the requests that were sent, then closes the channel.
   */
  readonly end: Effect.Effect<void> = Effect.suspend(() => {
    this.#hasEnded = true
    for (const call of this.#backlog.queue) call.fail(clientClosed)
    const { shutdown } = this.#internals
    const close = Effect.suspend(
      () =>
        this.#channel?.close(closedByUs, Duration.millis(shutdown.closeTimeLeftOf(this.#internals.currentLink()))) ??
        Effect.void
    )
    if (this.#channel === undefined || this.#channel.waiting === 0) return shutdown.during(close)
    this.#answered = Deferred.makeUnsafe()
    const answered = Effect.timeoutOption(Deferred.await(this.#answered), shutdown.timeLeft())
    return shutdown.during(Effect.andThen(answered, close))
  })
}

/** The inside of an `AmqpRpc`. */
export class RpcInside extends Inside<Client> {}

/**
 * A client that opens its channel at the first request, and another channel at the next request after that one has
 * died.
 */
export const make = Effect.fnUntraced(function* (
  connection: AmqpConnection["Service"],
  settings: Settings
): Effect.fn.Return<AmqpRpc["Service"], never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  const client = new Client(connection, settings, clock, fork)
  // Added after the finalizer of the fork, so that it runs before that one.
  yield* Effect.addFinalizer(() => client.end)
  return { call: client.call, stats: Effect.sync(() => client.stats), [InsideId]: new RpcInside(client) }
})
