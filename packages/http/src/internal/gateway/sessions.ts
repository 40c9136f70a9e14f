/**
 * The streams of deliveries that clients have open, and those that a client may resume.
 *
 * A session is one stream from a client's point of view, even if the client's connection is lost and replaced several
 * times. The session numbers its deliveries, and stores the last events for a client that reconnects. It has a consumer
 * while a client is attached. When the client leaves, the consumer ends immediately, and the unsettled deliveries
 * return to the queue.
 *
 * The permits of `limits.streams` belong to sessions, not to connections. A client that reconnects needs no second
 * permit. If its former connection still exists, it waits until that connection has ended. If a still newer client
 * connects during this wait, the newer one gets the session, and the waiting one is refused.
 */
import { AmqpConsumer, type AmqpError } from "@effect-amqp/core"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { stopping } from "../shutdown.ts"
import { type Refusal, refusalOf, refuse } from "./refusals.ts"
import { deliveryAsJson } from "./messages.ts"
import { type Bounds, failWith, type RequestRefused } from "./requests.ts"

/** Who acknowledges a delivery: the gateway after it has written the delivery, or the client explicitly. */
export type AckMode = "delivery" | "explicit"

/** Why the gateway ends a stream. */
export type Ending =
  | { readonly reason: "idle" | "stopping" | "resumed" }
  | { readonly reason: "failed"; readonly refusal: Refusal }

export type Settlement = "ack" | "requeue" | "reject"

/** An event `message`, as it is sent to a client. */
export interface Event {
  readonly id: string
  readonly data: string
}

/** A client of a session, which is one request. */
class Client {
  /** Completes when the gateway ends the client's stream. */
  readonly ended = Deferred.makeUnsafe<Ending>()
  /** Completes when the client has left the session and its consumer has ended. */
  readonly left = Deferred.makeUnsafe<void>()

  end(ending: Ending): void {
    Deferred.doneUnsafe(this.ended, Effect.succeed(ending))
  }
}

/** Upper bound of the memory per character of a string. */
const bytesPerCharacter = 2

export class Session {
  readonly id: string = crypto.randomUUID()
  readonly queue: string
  readonly mode: AckMode
  /** Deliveries that were sent to the client and are not settled, by their number. */
  readonly unsettled = new Map<number, AmqpConsumer.Delivery>()
  /**
   * The last events whose deliveries were acknowledged after they were written. If a client reconnects without having
   * received them, they are sent again.
   */
  readonly #written: Array<Event> = []
  /** Size of these events, in bytes. */
  #writtenBytes = 0
  /** Maximum size of these events, in bytes. */
  readonly #maxBytes: number
  #count = 0
  /** The client that owns the session. It is attached, or waits until its predecessor has left. */
  newest: Client | undefined = undefined
  /** The client that receives the deliveries; undefined if there is none. */
  attached: Client | undefined = undefined
  /** When the last client was attached, in milliseconds. */
  attachedAt = Number.NEGATIVE_INFINITY
  #touched = true

  /** @param maxBytes maximum size of the stored events, in bytes */
  constructor(queue: string, mode: AckMode, maxBytes: number) {
    this.queue = queue
    this.mode = mode
    this.#maxBytes = maxBytes
  }

  /** Creates the event for a delivery, and registers the delivery as unsettled. */
  add(delivery: AmqpConsumer.Delivery): { readonly event: Event; readonly number: number } {
    const number = ++this.#count
    const id = `${this.id}.${number}`
    this.unsettled.set(number, delivery)
    return { number, event: { id, data: JSON.stringify({ id, ...deliveryAsJson(delivery) }) } }
  }

  /** Acknowledges a delivery whose event was written, and stores the last `maxEvents` events. */
  acknowledgeWritten(number: number, event: Event, maxEvents: number): Effect.Effect<void> {
    const delivery = this.unsettled.get(number)
    if (delivery === undefined) return Effect.void
    this.unsettled.delete(number)
    return Effect.match(delivery.ack, {
      // The delivery was lost with its channel. The broker delivers the message again.
      onFailure: () => {},
      onSuccess: () => this.#store(event, maxEvents)
    })
  }

  #store(event: Event, maxEvents: number): void {
    const events = this.#written
    events.push(event)
    this.#writtenBytes += event.data.length * bytesPerCharacter
    while (events.length > maxEvents || this.#writtenBytes > this.#maxBytes) {
      this.#writtenBytes -= events.shift()!.data.length * bytesPerCharacter
    }
  }

  /** Records that the client has taken or settled a delivery, so the session is not idle. */
  touch(): void {
    this.#touched = true
  }

  /** Whether `touch` was called since the last read of this property. Each read resets it. */
  get wasTouched(): boolean {
    const touched = this.#touched
    this.#touched = false
    return touched
  }

  /** The stored events after the event of this number. */
  since(number: number): ReadonlyArray<Event> {
    return this.#written.filter(({ id }) => Number(id.slice(this.id.length + 1)) > number)
  }

  /** Settles a delivery. Returns `undefined` if there is no unsettled delivery of this number. */
  settle(number: number, how: Settlement): Effect.Effect<void, AmqpError.AmqpError> | undefined {
    const delivery = this.unsettled.get(number)
    if (delivery === undefined) return undefined
    this.unsettled.delete(number)
    this.touch()
    return how === "ack" ? delivery.ack : delivery.reject({ requeue: how === "requeue" })
  }
}

/** The source of an attached client's events. */
export interface Attachment {
  readonly session: Session
  /** Events that the client has missed, and that are sent again. */
  readonly missed: ReadonlyArray<Event>
  /** Whether the client continues an earlier session. */
  readonly resumed: boolean
  readonly inbox: Queue.Queue<AmqpConsumer.Delivery>
  /** Completes when the gateway ends the stream. Its consumer ends then too. */
  readonly ended: Deferred.Deferred<Ending>
}

/** How long a replaced client may take to read the event `end` before its request is interrupted. */
const takeoverGrace = Duration.seconds(1)

/**
 * Minimum time between two clients of a session, in milliseconds. For each client a channel is opened and `prefetch`
 * messages are delivered, so faster reconnects would be expensive. A client that has lost its connection reconnects
 * after a longer time (the `retry` of the events is one second).
 */
const minTakeoverInterval = 250

const parseId = (id: string | undefined): readonly [session: string, number: number] | undefined => {
  const dot = id?.lastIndexOf(".") ?? -1
  if (id === undefined || dot < 0) return undefined
  const number = Number(id.slice(dot + 1))
  return Number.isSafeInteger(number) && number >= 0 ? [id.slice(0, dot), number] : undefined
}

export class Sessions {
  /** All sessions, by their id. */
  readonly #sessions = new Map<string, Session>()
  /** The sessions that hold a permit of `limits.streams`: a client is attached, or is about to be. */
  readonly #open = new Set<Session>()
  /** The sessions that wait for their client to reconnect, oldest first, with the fibers that forget them. */
  readonly #waiting = new Map<Session, Fiber.Fiber<void>>()
  readonly #bounds: Bounds
  readonly #scope: Scope.Scope

  /** @param scope the scope in which sessions wait for their clients to reconnect */
  constructor(bounds: Bounds, scope: Scope.Scope) {
    this.#bounds = bounds
    this.#scope = scope
  }

  /** Finds the session and the delivery's number that an event's id refers to. */
  find(queue: string, id: string): readonly [Session, number] | undefined {
    const parsed = parseId(id)
    const session = parsed === undefined ? undefined : this.#sessions.get(parsed[0])
    return parsed === undefined || session?.queue !== queue ? undefined : [session, parsed[1]]
  }

  /**
   * Attaches the client of the current scope, and consumes for it until it leaves or the stream ends. `lastEventId` is
   * the last event that a reconnecting client has received.
   */
  readonly attach = Effect.fnUntraced(
    { self: this },
    function* (
      this: Sessions,
      queue: string,
      mode: AckMode,
      prefetch: number,
      lastEventId: string | undefined
    ): Effect.fn.Return<Attachment, RequestRefused, AmqpConsumer.AmqpConsumer | Scope.Scope> {
      const bounds = this.#bounds
      const last = lastEventId === undefined ? undefined : this.find(queue, lastEventId)
      const known = last?.[0].mode === mode ? last[0] : undefined
      const session = known ?? new Session(queue, mode, bounds.replayBuffer)
      const client = new Client()
      yield* this.#enter(session, client)
      const fiber = yield* Effect.withFiber((fiber) => Effect.succeed(fiber))
      const { ended } = client
      const inbox = yield* Queue.bounded<AmqpConsumer.Delivery>(1)
      const consuming = yield* Scope.make()
      // Closing this scope returns the unsettled deliveries, so the request's scope waits for it.
      yield* Effect.addFinalizer((exit) => Scope.close(consuming, exit))

      yield* AmqpConsumer.stream(queue, { prefetch, requiredForReadiness: false }).pipe(
        Stream.runForEach((delivery) => Queue.offer(inbox, delivery)),
        Effect.matchEffect({
          onFailure: (error) => Effect.sync(() => client.end({ reason: "failed", refusal: refusalOf(error) })),
          onSuccess: () => Effect.void
        }),
        Effect.forkIn(consuming)
      )
      session.touch()
      const watch = Effect.gen(function* () {
        while (session.wasTouched) yield* Effect.sleep(bounds.idleTimeout)
        client.end({ reason: "idle" })
      })
      const stopped = Effect.map(stopping, () => client.end({ reason: "stopping" }))
      yield* Effect.forkScoped(Effect.raceFirst(watch, stopped))
      // When the stream ends, its deliveries return to the queue at once, even if the client no longer reads.
      yield* Effect.forkScoped(
        Effect.flatMap(Deferred.await(ended), ({ reason }) => {
          session.unsettled.clear()
          // A client that reads gets the event `end`. If it does not read, its request is interrupted after this time.
          // The time is shorter if another client waits for the session.
          const grace =
            reason === "resumed" ? Duration.min(bounds.heartbeatInterval, takeoverGrace) : bounds.heartbeatInterval
          const interruptRequest = Effect.sync(() => fiber.interruptUnsafe())
          return Effect.andThen(
            Scope.close(consuming, Exit.void),
            Effect.andThen(Effect.sleep(grace), interruptRequest)
          )
        })
      )
      return {
        session,
        resumed: known !== undefined,
        missed: known === undefined || last === undefined ? [] : known.since(last[1]),
        inbox,
        ended
      }
    }
  )

  /**
   * Makes this client the owner of a session until the scope closes. A new session takes a permit; an existing one
   * keeps its permit. Waits until a former client has left.
   */
  readonly #enter = Effect.fnUntraced(
    { self: this },
    function* (this: Sessions, session: Session, client: Client): Effect.fn.Return<void, RequestRefused, Scope.Scope> {
      const superseded = failWith(refuse(503, "Another request of this client has taken over this stream.", 1))
      const hasPermit = yield* Effect.acquireRelease(
        Effect.sync(() => {
          if (!this.#open.has(session) && this.#open.size >= this.#bounds.streams) return false
          this.#open.add(session)
          this.#sessions.set(session.id, session)
          this.#stopWaiting(session)
          const former = session.newest
          session.newest = client
          // A client that reconnects no longer uses its former connection, even if this server has not noticed its end.
          // This call must be the last statement, because the former client may leave during it.
          former?.end({ reason: "resumed" })
          return true
        }),
        (hasPermit) => {
          // If a newer client owns the session already, that client releases the permit.
          if (!hasPermit || session.newest !== client) return Effect.void
          session.newest = undefined
          return this.#leave(session)
        }
      )
      if (!hasPermit) {
        return yield* failWith(refuse(503, "The service has reached its limit of open streams. Try again later.", 5))
      }
      const unlessSuperseded = (wait: Effect.Effect<void>) =>
        Effect.raceFirst(wait, Effect.andThen(Deferred.await(client.ended), superseded))
      const clock = yield* Clock.Clock
      const remainingInterval = session.attachedAt + minTakeoverInterval - clock.currentTimeMillisUnsafe()
      if (remainingInterval > 0) yield* unlessSuperseded(Effect.sleep(remainingInterval))
      for (let former = session.attached; former !== undefined; former = session.attached) {
        yield* unlessSuperseded(Deferred.await(former.left))
      }
      const isAttached = yield* Effect.acquireRelease(
        Effect.sync(() => {
          if (session.newest !== client || session.attached !== undefined) return false
          session.attached = client
          session.attachedAt = clock.currentTimeMillisUnsafe()
          session.unsettled.clear()
          return true
        }),
        (isAttached) => {
          if (!isAttached) return Effect.void
          session.unsettled.clear()
          session.attached = undefined
          Deferred.doneUnsafe(client.left, Effect.void)
          return this.#leave(session)
        }
      )
      if (!isAttached) return yield* superseded
    }
  )

  /** Returns the permit of a session that has no client. */
  #leave(session: Session): Effect.Effect<void> {
    if (session.newest !== undefined || session.attached !== undefined) return Effect.void
    this.#open.delete(session)
    return this.#wait(session)
  }

  /**
   * Keeps a session until its client reconnects or `resumeTimeout` expires. At most `limits.streams` sessions wait; the
   * oldest is dropped first.
   */
  #wait(session: Session): Effect.Effect<void> {
    const forget = (forgotten: Session) => {
      this.#stopWaiting(forgotten)
      this.#sessions.delete(forgotten.id)
    }
    for (const oldest of this.#waiting.keys()) {
      if (this.#waiting.size < this.#bounds.streams) break
      forget(oldest)
    }
    const later = Effect.andThen(
      Effect.sleep(this.#bounds.resumeTimeout),
      Effect.sync(() => forget(session))
    )
    return Effect.map(Effect.forkIn(later, this.#scope), (fiber) => {
      // The client may have reconnected already.
      if (session.newest === undefined) this.#waiting.set(session, fiber)
      else fiber.interruptUnsafe()
    })
  }

  #stopWaiting(session: Session): void {
    const fiber = this.#waiting.get(session)
    this.#waiting.delete(session)
    fiber?.interruptUnsafe()
  }
}
