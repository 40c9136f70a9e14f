/**
 * The streams of deliveries that clients have open, and those that a client may come back to.
 *
 * A session is what a client sees as one stream, however often its connection drops: it counts its deliveries, and
 * remembers the last events for a client that comes back. While a client is attached it consumes; when the client leaves,
 * the consumer ends at once, and what is unsettled goes back to the queue.
 *
 * A place of `limits.streams` belongs to a session, not to a connection: a client that comes back while its former connection
 * is still there waits until that has ended, in the same place. The newest client has the session; one that waits when
 * a newer one comes is refused.
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
import { type Refusal, refusalOf, refuse } from "./answers.ts"
import { deliveryAsJson } from "./messages.ts"
import { type Bounds, failWith, type Refused } from "./requests.ts"

/** Who acknowledges: the gateway when it has written a delivery, or the client. */
export type Mode = "delivery" | "explicit"

/** Why a stream ends that its client has not left. */
export type Ending =
  | { readonly reason: "idle" | "stopping" | "resumed" }
  | { readonly reason: "failed"; readonly refusal: Refusal }

export type Settlement = "ack" | "requeue" | "reject"

/** One event, as a client gets it. */
export interface Event {
  readonly id: string
  readonly data: string
}

/** A client of a session: its request. */
class Client {
  /** Completes when its stream is to end. */
  readonly ended = Deferred.makeUnsafe<Ending>()
  /** Completes when its consumer has ended. */
  readonly left = Deferred.makeUnsafe<void>()

  end(ending: Ending): void {
    Deferred.doneUnsafe(this.ended, Effect.succeed(ending))
  }
}

/** What a character of a text takes in memory at most. */
const bytesPerCharacter = 2

export class Session {
  readonly id: string = crypto.randomUUID()
  readonly queue: string
  readonly mode: Mode
  /** Handed to the client, and not settled. */
  readonly unsettled = new Map<number, AmqpConsumer.Delivery>()
  /** The last events that were acknowledged when they were written, for a client that has not got them. */
  readonly #written: Array<Event> = []
  /** Bytes of them, and their bound. */
  #writtenBytes = 0
  readonly #mostBytes: number
  #count = 0
  /** Who has the session: it is attached, or waits until its predecessor has left. */
  newest: Client | undefined = undefined
  /** Who consumes. */
  attached: Client | undefined = undefined
  /** When it was attached, in milliseconds. */
  attachedAt = Number.NEGATIVE_INFINITY
  #touched = true

  /** @param mostBytes of the events that are remembered */
  constructor(queue: string, mode: Mode, mostBytes: number) {
    this.queue = queue
    this.mode = mode
    this.#mostBytes = mostBytes
  }

  /** The event that a delivery is. It is unsettled from now on. */
  add(delivery: AmqpConsumer.Delivery): { readonly event: Event; readonly number: number } {
    const number = ++this.#count
    const id = `${this.id}.${number}`
    this.unsettled.set(number, delivery)
    return { number, event: { id, data: JSON.stringify({ id, ...deliveryAsJson(delivery) }) } }
  }

  /** Acknowledges what has been written, and remembers the last `most` of them. */
  written(number: number, event: Event, most: number): Effect.Effect<void> {
    const delivery = this.unsettled.get(number)
    if (delivery === undefined) return Effect.void
    this.unsettled.delete(number)
    return Effect.match(delivery.ack, {
      // It was lost with its channel: it comes again.
      onFailure: () => {},
      onSuccess: () => this.#remember(event, most)
    })
  }

  #remember(event: Event, most: number): void {
    const written = this.#written
    written.push(event)
    this.#writtenBytes += event.data.length * bytesPerCharacter
    while (written.length > most || this.#writtenBytes > this.#mostBytes) {
      this.#writtenBytes -= written.shift()!.data.length * bytesPerCharacter
    }
  }

  /** Its client has taken or settled something: it is not idle. */
  touch(): void {
    this.#touched = true
  }

  /** Whether that was so since this was asked last. */
  get wasTouched(): boolean {
    const touched = this.#touched
    this.#touched = false
    return touched
  }

  /** What came after this event, as far as it is remembered. */
  since(number: number): ReadonlyArray<Event> {
    return this.#written.filter(({ id }) => Number(id.slice(this.id.length + 1)) > number)
  }

  /** Settles a delivery; `undefined` if there is none of this number that is unsettled. */
  settle(number: number, how: Settlement): Effect.Effect<void, AmqpError.AmqpError> | undefined {
    const delivery = this.unsettled.get(number)
    if (delivery === undefined) return undefined
    this.unsettled.delete(number)
    this.touch()
    return how === "ack" ? delivery.ack : delivery.reject({ requeue: how === "requeue" })
  }
}

/** What an attached client reads from. */
export interface Attached {
  readonly session: Session
  /** Events to be sent again. */
  readonly missed: ReadonlyArray<Event>
  readonly resumed: boolean
  readonly inbox: Queue.Queue<AmqpConsumer.Delivery>
  /** Completes when the stream is to end. Its consumer has ended then. */
  readonly ended: Deferred.Deferred<Ending>
}

/** How long a client that is replaced may take to read that it is. */
const takeover = Duration.seconds(1)

/**
 * Milliseconds from one client of a session to the next: each opens a channel, and is sent `prefetch` messages. A client that
 * has lost its connection comes back later than that (`retry` of the events is a second).
 */
const betweenTakeovers = 250

const parseId = (id: string | undefined): readonly [session: string, number: number] | undefined => {
  const dot = id?.lastIndexOf(".") ?? -1
  if (id === undefined || dot < 0) return undefined
  const number = Number(id.slice(dot + 1))
  return Number.isSafeInteger(number) && number >= 0 ? [id.slice(0, dot), number] : undefined
}

export class Sessions {
  /** All that can be found. */
  readonly #sessions = new Map<string, Session>()
  /** Those that have a place: a client is attached, or about to be. */
  readonly #open = new Set<Session>()
  /** Those that wait for their client, the oldest first, and what forgets them. */
  readonly #waiting = new Map<Session, Fiber.Fiber<void>>()
  readonly #bounds: Bounds
  readonly #scope: Scope.Scope

  /** @param scope where sessions wait for their clients to come back */
  constructor(bounds: Bounds, scope: Scope.Scope) {
    this.#bounds = bounds
    this.#scope = scope
  }

  /** The session and the delivery that an event's id means. */
  find(queue: string, id: string): readonly [Session, number] | undefined {
    const parsed = parseId(id)
    const session = parsed === undefined ? undefined : this.#sessions.get(parsed[0])
    return parsed === undefined || session?.queue !== queue ? undefined : [session, parsed[1]]
  }

  /**
   * Attaches the client of the current scope: consumes for it, until it leaves or the stream ends. `lastEventId` is what it
   * has got last, if it comes back.
   */
  readonly attach = Effect.fnUntraced(
    { self: this },
    function* (
      this: Sessions,
      queue: string,
      mode: Mode,
      prefetch: number,
      lastEventId: string | undefined
    ): Effect.fn.Return<Attached, Refused, AmqpConsumer.AmqpConsumer | Scope.Scope> {
      const bounds = this.#bounds
      const last = lastEventId === undefined ? undefined : this.find(queue, lastEventId)
      const known = last?.[0].mode === mode ? last[0] : undefined
      const session = known ?? new Session(queue, mode, bounds.missed)
      const client = new Client()
      yield* this.#enter(session, client)
      const fiber = yield* Effect.withFiber((fiber) => Effect.succeed(fiber))
      const { ended } = client
      const inbox = yield* Queue.bounded<AmqpConsumer.Delivery>(1)
      const consuming = yield* Scope.make()
      // Its end settles what is unsettled, so whatever ends it waits for that.
      yield* Effect.addFinalizer((exit) => Scope.close(consuming, exit))

      yield* AmqpConsumer.stream(queue, { prefetch, essential: false }).pipe(
        Stream.runForEach((delivery) => Queue.offer(inbox, delivery)),
        Effect.matchEffect({
          onFailure: (error) => Effect.sync(() => client.end({ reason: "failed", refusal: refusalOf(error) })),
          onSuccess: () => Effect.void
        }),
        Effect.forkIn(consuming)
      )
      session.touch()
      const watch = Effect.gen(function* () {
        while (session.wasTouched) yield* Effect.sleep(bounds.idle)
        client.end({ reason: "idle" })
      })
      const stopped = Effect.map(stopping, () => client.end({ reason: "stopping" }))
      yield* Effect.forkScoped(Effect.raceFirst(watch, stopped))
      // A client that reads nothing more must not keep what was delivered to it.
      yield* Effect.forkScoped(
        Effect.flatMap(Deferred.await(ended), ({ reason }) => {
          session.unsettled.clear()
          // It is told so, if it reads. If it does not, its request ends all the same: soon, if somebody waits for that.
          const patience = reason === "resumed" ? Duration.min(bounds.heartbeat, takeover) : bounds.heartbeat
          const cut = Effect.sync(() => fiber.interruptUnsafe())
          return Effect.andThen(Scope.close(consuming, Exit.void), Effect.andThen(Effect.sleep(patience), cut))
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

  /** Takes a place for a session, or its place over, until the scope closes. Waits until a former client has left. */
  readonly #enter = Effect.fnUntraced(
    { self: this },
    function* (this: Sessions, session: Session, client: Client): Effect.fn.Return<void, Refused, Scope.Scope> {
      const superseded = failWith(refuse(503, "The client of this stream has come back once more.", 1))
      const isIn = yield* Effect.acquireRelease(
        Effect.sync(() => {
          if (!this.#open.has(session) && this.#open.size >= this.#bounds.streams) return false
          this.#open.add(session)
          this.#sessions.set(session.id, session)
          this.#stopWaiting(session)
          const former = session.newest
          session.newest = client
          // Whoever comes back has left, even if this end has not noticed. Last, since it may leave within this call.
          former?.end({ reason: "resumed" })
          return true
        }),
        (isIn) => {
          // Another client may have it already.
          if (!isIn || session.newest !== client) return Effect.void
          session.newest = undefined
          return this.#leave(session)
        }
      )
      if (!isIn) {
        return yield* failWith(refuse(503, "As many streams are open as this service takes. Try again later.", 5))
      }
      const unlessSuperseded = (wait: Effect.Effect<void>) =>
        Effect.raceFirst(wait, Effect.andThen(Deferred.await(client.ended), superseded))
      const clock = yield* Clock.Clock
      const early = session.attachedAt + betweenTakeovers - clock.currentTimeMillisUnsafe()
      if (early > 0) yield* unlessSuperseded(Effect.sleep(early))
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

  /** Gives the place of a session back that nobody has. */
  #leave(session: Session): Effect.Effect<void> {
    if (session.newest !== undefined || session.attached !== undefined) return Effect.void
    this.#open.delete(session)
    return this.#wait(session)
  }

  /** For a client that comes back. As many may wait as can be open; the oldest goes first. */
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
      Effect.sleep(this.#bounds.resume),
      Effect.sync(() => forget(session))
    )
    return Effect.map(Effect.forkIn(later, this.#scope), (fiber) => {
      // Its client may be back already.
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
