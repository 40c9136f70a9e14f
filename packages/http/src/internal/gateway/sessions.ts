/**
 * The streams of deliveries that clients have open, and those that a client may come back to.
 *
 * A session is what a client sees as one stream, however often its connection drops: it counts its deliveries, and
 * remembers the last events for whoever comes back. While a client is attached it consumes; when the client leaves, the
 * consumer ends at once, and what is unsettled goes back to the queue.
 */
import { AmqpConsumer, type AmqpError } from "@effect-amqp/core"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as AmqpHttpServer from "../../AmqpHttpServer.ts"
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

export class Session {
  readonly id: string = crypto.randomUUID()
  readonly queue: string
  readonly mode: Mode
  /** Handed to the client, and not settled. */
  readonly unsettled = new Map<number, AmqpConsumer.Delivery>()
  /** The last events that were acknowledged when they were written, for a client that has not got them. */
  readonly #written: Array<Event> = []
  #count = 0
  /** Ends the stream of the client that is attached. */
  end: ((ending: Ending) => void) | undefined = undefined
  #touched = true

  constructor(queue: string, mode: Mode) {
    this.queue = queue
    this.mode = mode
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
      onSuccess: () => {
        this.#written.push(event)
        if (this.#written.length > most) this.#written.shift()
      }
    })
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

const parseId = (id: string | undefined): readonly [session: string, number: number] | undefined => {
  const dot = id?.lastIndexOf(".") ?? -1
  if (id === undefined || dot < 0) return undefined
  const number = Number(id.slice(dot + 1))
  return Number.isSafeInteger(number) && number >= 0 ? [id.slice(0, dot), number] : undefined
}

export class Sessions {
  readonly #sessions = new Map<string, Session>()
  readonly #bounds: Bounds
  readonly #scope: Scope.Scope
  #open = 0

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
      // Whoever comes back has left, even if this end has not noticed.
      const before = known?.end
      if (before !== undefined) before({ reason: "resumed" })
      else if (this.#open >= bounds.streams) {
        return yield* failWith(refuse(503, "As many streams are open as this service takes. Try again later.", 5))
      }
      yield* Effect.acquireRelease(
        Effect.sync(() => this.#open++),
        () => Effect.sync(() => this.#open--)
      )
      const session = known ?? new Session(queue, mode)
      session.unsettled.clear()
      const fiber = yield* Effect.withFiber((fiber) => Effect.succeed(fiber))
      const ended = yield* Deferred.make<Ending>()
      const inbox = yield* Queue.bounded<AmqpConsumer.Delivery>(1)
      const consuming = yield* Scope.make()
      const end = (ending: Ending) => void Deferred.doneUnsafe(ended, Effect.succeed(ending))
      session.end = end
      this.#sessions.set(session.id, session)
      yield* Effect.addFinalizer(() =>
        Effect.suspend(() => {
          // Another client may have it already.
          if (session.end !== end) return Effect.void
          session.end = undefined
          return this.#keep(session)
        })
      )
      // Its end settles what is unsettled, so whatever ends it waits for that.
      yield* Effect.addFinalizer((exit) => Scope.close(consuming, exit))

      yield* AmqpConsumer.stream(queue, { prefetch, essential: false }).pipe(
        Stream.runForEach((delivery) => Queue.offer(inbox, delivery)),
        Effect.matchEffect({
          onFailure: (error) => Effect.sync(() => end({ reason: "failed", refusal: refusalOf(error) })),
          onSuccess: () => Effect.void
        }),
        Effect.forkIn(consuming)
      )
      session.touch()
      const watch = Effect.gen(function* () {
        while (session.wasTouched) yield* Effect.sleep(bounds.idle)
        end({ reason: "idle" })
      })
      const stopped = Effect.map(AmqpHttpServer.stopping, () => end({ reason: "stopping" }))
      yield* Effect.forkScoped(Effect.raceFirst(watch, stopped))
      // A client that reads nothing more must not keep what was delivered to it.
      yield* Effect.forkScoped(
        Effect.flatMap(Deferred.await(ended), () => {
          if (session.end === end) session.unsettled.clear()
          // It is told so, if it reads. If it does not, its request ends all the same.
          const cut = Effect.sync(() => fiber.interruptUnsafe())
          return Effect.andThen(Scope.close(consuming, Exit.void), Effect.andThen(Effect.sleep(bounds.heartbeat), cut))
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

  /** For a client that comes back. */
  #keep(session: Session): Effect.Effect<void> {
    session.unsettled.clear()
    // As many as can be open may wait; the oldest goes first.
    let waiting = [...this.#sessions.values()].filter(({ end }) => end === undefined).length
    for (const [id, { end }] of this.#sessions) {
      if (waiting <= this.#bounds.streams) break
      if (end !== undefined) continue
      this.#sessions.delete(id)
      waiting--
    }
    const forget = Effect.sync(() => {
      if (session.end === undefined) this.#sessions.delete(session.id)
    })
    return Effect.asVoid(Effect.forkIn(Effect.andThen(Effect.sleep(this.#bounds.resume), forget), this.#scope))
  }
}
