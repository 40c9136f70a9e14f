/**
 * Requests of many fibers over one channel: the line of those not sent yet, the channel and its replacement, the counts.
 *
 * A request costs an entry here and there, no fiber of its own. What happens to it is told by events: a reply, a return,
 * a confirm, the channel's end, the one timer of all deadlines.
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
import { isRefused } from "../wire/optionTable.ts"
import { fail } from "../../model/failures.ts"
import { type Terms } from "../channel/handle.ts"
import { type Links, linksOf } from "../connection/links.ts"
import { Histogram } from "../metrics/histogram.ts"
import { toPublish } from "../wire/properties.ts"
import { forbidden } from "../channel/publishing.ts"
import { SizeLimit } from "../channel/sizeLimit.ts"
import { correlationIdOf } from "./correlation.ts"
import { Call, type CallOwner, type Leaving } from "./call.ts"
import { type CallSettings, type Settings, readCallOptions } from "./options.ts"
import { type Codecs, codecsOf } from "./procedure.ts"
import { Session, type SessionOwner } from "./session.ts"
import { directReplyTo } from "../wire/directReply.ts"
import { readReply, type Reply } from "./wire.ts"
import { Backlog, type Bounds } from "../waiting/backlog.ts"
import type { Fork } from "../waiting/fork.ts"
import * as Tracing from "../telemetry/tracing.ts"
import { messageWith } from "../telemetry/tracingContext.ts"

const ended = new AmqpError.PoolClosed({
  message: "AmqpRpc: nothing was sent: the client is closed, the scope that made it has ended"
})

const closedByUs = new AmqpError.ChannelClosed({ message: "the scope that made this client has ended" })

class Client implements CallOwner, SessionOwner {
  readonly #links: Links
  readonly #limit: SizeLimit
  readonly #terms: Terms
  readonly #fork: Fork
  /** Requests that are not sent yet, first come, first served. */
  readonly #backlog: Backlog<Call>
  /** What a channel takes. */
  readonly #inFlight: Bounds
  #session: Session | undefined = undefined
  #isOpening = false
  #hasEnded = false
  #answered: Deferred.Deferred<void> | undefined = undefined
  // Of this client alone, whatever others use as theirs: a reply that took the wrong way is nobody's.
  readonly #prefix = Crypto.randomBytes(6).toString("base64url")
  #made = 0
  /** How they have ended. */
  readonly outcomes: Record<Leaving, number> = { replied: 0, failed: 0, timedOut: 0, givenUp: 0 }
  /** How long replies took to come. */
  readonly durations = new Histogram()
  #unclaimed = 0

  constructor(connection: AmqpConnection["Service"], settings: Settings, clock: Clock.Clock, fork: Fork) {
    const { continuationTimeout, publishTimeout } = connection.config
    this.#links = linksOf(connection)
    this.#limit = new SizeLimit(settings.maxMessageSize)
    this.#backlog = new Backlog("requests", { maxCount: settings.maxWaiting, maxBytes: settings.maxWaitingBytes })
    this.#inFlight = { maxCount: settings.maxInFlight, maxBytes: settings.maxInFlightBytes }
    this.#fork = fork
    this.#terms = {
      continuationTimeout,
      publishTimeout: Duration.toMillis(publishTimeout),
      deadlines: new Deadlines(clock, fork),
      queues: this.#links.queues
    }
  }

  get stats(): Stats {
    return {
      inFlight: this.#session?.waiting ?? 0,
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
      if (isRefused(codecs)) return fail(codecs)
      const settings = readCallOptions(options)
      if (isRefused(settings)) return fail(settings)
      const correlationId = correlationIdOf(this.#prefix, ++this.#made)
      return Tracing.isTraced(fiber)
        ? Tracing.calling(procedure, correlationId, this.#links.current(), (span, baggage) =>
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
      // It is worth nothing any more when the broker has been restarted: its client has another address by then.
      persistent: false,
      priority: settings.priority,
      headers: settings.headers,
      type: name,
      correlationId,
      replyTo: directReplyTo
    }
    const sent = Effect.flatMap(codecs.payload.encode(payload, envelope), (encoded) => {
      const link = this.#links.current()
      const message = traced === undefined ? encoded : messageWith(encoded, traced.span, traced.baggage, link?.frameMax)
      const outgoing = toPublish(message, link?.frameMax, name)
      if (isRefused(outgoing)) return fail(outgoing)
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
      const { deadlines } = this.#terms
      const startedAt = deadlines.exact
      const dueAt = Math.floor(startedAt) + timeout
      const call = new Call(
        { ...request, timeout, startedAt, dueAt, expires, failsWhenBlocked: onBlocked === "fail" },
        this,
        resume
      )
      deadlines.add(call)
      // Most find a free channel.
      const { isDraining, load } = this.#backlog
      if (load.count > 0 || isDraining || !this.#sendsNow(call)) {
        this.#backlog.add(call)
        this.#pump()
      }
      return Effect.sync(() => call.giveUp())
    })
  }

  #refuses(failsWhenBlocked: boolean, size: number): AmqpError.AmqpErrorReason | undefined {
    if (this.#hasEnded) return ended
    if (failsWhenBlocked) {
      const forbids = this.#session?.forbids ?? this.#links.current()?.forbids
      if (forbids !== undefined) return forbidden(forbids)
    }
    // What a channel that is not open yet will take does not count as waiting.
    const more = this.#session === undefined ? this.#inFlight : undefined
    if (this.#session?.takes(size) === true || this.#backlog.load.takes(size, more)) return undefined
    return new AmqpError.PoolExhausted({
      message: `AmqpRpc: nothing was sent: ${this.waitsFor()}; ${this.#backlog.full(more)}`
    })
  }

  /** Sends from the line what can be sent. */
  readonly #pump = (): void => {
    const { isDraining, load } = this.#backlog
    if (isDraining || load.count === 0) return
    const session = this.#session
    if (session === undefined || !session.isOpen) return this.#open()
    this.#backlog.drain(this.#sendNext)
    if (this.#session === undefined && load.count > 0) this.#open()
  }

  readonly #sendNext = (): boolean => {
    const call = this.#backlog.line.first!
    if (!this.#sendsNow(call)) return false
    this.#backlog.remove(call)
    return true
  }

  /** Whether the call was dealt with: sent, or told that it cannot be. If not, it waits, or the session has ended. */
  #sendsNow(call: Call): boolean {
    const session = this.#session
    if (session === undefined || !session.takes(call.size)) return false
    // The broker may be another one than when the request was taken in.
    const refused = this.#limit.refusesOn(session.link, call)
    if (refused === undefined) return session.send(call)
    call.fail(refused)
    return true
  }

  left(call: Call, how: Leaving): void {
    this.outcomes[how]++
    if (how === "replied") this.durations.record(this.#terms.deadlines.exact - call.startedAt)
    if (how !== "timedOut") this.#terms.deadlines.delete(call)
    if (call.session === undefined) this.#backlog.remove(call)
    else call.session.forget(call)
    if (this.#answered !== undefined && (this.#session?.waiting ?? 0) === 0) {
      Deferred.doneUnsafe(this.#answered, Effect.void)
    }
    this.#pump()
  }

  waitsFor(): string {
    const session = this.#session
    if (session === undefined || !session.isOpen) {
      return this.#links.current() === undefined ? "the connection is away" : "its channel is not open yet"
    }
    return session.full
  }

  confirmed(): void {
    this.#pump()
  }

  // --- The channel ---------------------------------------------------------------------------------------------------

  unclaimed(): void {
    this.#unclaimed++
  }

  readonly changed = (): void => {
    const forbids = this.#session?.forbids
    if (forbids === undefined) return this.#pump()
    const waiting = Array.from(this.#backlog.line).filter((call) => call.failsWhenBlocked)
    if (waiting.length === 0) return
    const reason = forbidden(forbids)
    for (const call of waiting) call.fail(reason)
  }

  closed(session: Session): void {
    if (this.#session === session) this.#session = undefined
    this.#pump()
  }

  #open(): void {
    if (this.#isOpening || this.#hasEnded) return
    this.#isOpening = true
    this.#fork(this.#opening)
  }

  // Later than now: a channel hears of the end of its connection before the connection itself does.
  readonly #opening: Effect.Effect<void> = Effect.suspend(() =>
    Effect.andThen(
      Effect.yieldNow,
      Effect.matchEffect(this.#links.next, {
        onFailure: (error) => this.#notOpened(error),
        onSuccess: (link) =>
          Effect.matchEffect(Session.open(link, this.#terms, this, this.#inFlight, this.#opened), {
            // The connection is made again and nothing was sent: those in line wait for it, as those who come do.
            onFailure: (error) =>
              error.severity === "connection" && error.isRetryable && this.#backlog.load.count > 0
                ? this.#opening
                : this.#notOpened(error),
            onSuccess: () => Effect.void
          })
      })
    )
  )

  readonly #opened = (session: Session): void => {
    this.#isOpening = false
    if (this.#hasEnded) return session.abandon()
    this.#session = session
    return this.changed()
  }

  #notOpened(error: AmqpError.AmqpError): Effect.Effect<void> {
    return Effect.sync(() => {
      const failed = Array.from(this.#backlog.line)
      // Now: who is told may ask again at once, and that starts another opening.
      for (const call of failed) this.#backlog.remove(call)
      this.#isOpening = false
      for (const call of failed) call.fail(error.reason)
    })
  }

  /** Ends requests in line, waits for the replies to those that were sent, then closes the channel. */
  readonly end: Effect.Effect<void> = Effect.suspend(() => {
    this.#hasEnded = true
    for (const call of this.#backlog.line) call.fail(ended)
    const { shutdown } = this.#links
    const close = Effect.suspend(
      () => this.#session?.close(closedByUs, Duration.millis(shutdown.closingOf(this.#links.current()))) ?? Effect.void
    )
    if (this.#session === undefined || this.#session.waiting === 0) return shutdown.during(close)
    this.#answered = Deferred.makeUnsafe()
    const answered = Effect.timeoutOption(Deferred.await(this.#answered), shutdown.patience())
    return shutdown.during(Effect.andThen(answered, close))
  })
}

/** The inside of an `AmqpRpc`. */
export class RpcInside extends Inside<Client> {}

/** Opens its channel at the first request, and a new one at the next when that has died. */
export const make = Effect.fnUntraced(function* (
  connection: AmqpConnection["Service"],
  settings: Settings
): Effect.fn.Return<AmqpRpc["Service"], never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  const client = new Client(connection, settings, clock, fork)
  // After the fork's own finalizer was put in place, so it runs before that.
  yield* Effect.addFinalizer(() => client.end)
  return { call: client.call, stats: Effect.sync(() => client.stats), [InsideId]: new RpcInside(client) }
})
