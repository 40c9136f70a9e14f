/**
 * One place of the pool, and the channel in it, if any.
 *
 * A place is what `Effect.Pool` lends; the channel inside comes and goes. So a borrower keeps its place, and its turn,
 * while a dead channel is replaced, and a place never has two channels: the next is opened after the last has closed.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { AmqpError } from "../../model/error.ts"
import type { Channel } from "../channel/channel.ts"
import type { Fork } from "../waiting/fork.ts"

export class Slot<Lease> {
  channel: Channel | undefined = undefined
  /** When its channel opened, how old that may become, and since when nobody has it, in milliseconds of the pool's clock. */
  openedAt = 0
  maxAge = Infinity
  idleSince = 0
  /** The lease that holds this place. */
  lease: Lease | undefined = undefined
  /** The opening under way: it goes on when its borrower leaves, and serves the next one. */
  opening: Deferred.Deferred<void, AmqpError> | undefined = undefined
  /** The closing under way: the next opening waits for it. */
  closing: Deferred.Deferred<void> | undefined = undefined

  /** Whether a channel may be opened here. */
  get isEmpty(): boolean {
    return this.channel === undefined && this.opening === undefined && this.closing === undefined
  }

  #opener: Fiber.Fiber<void> | undefined = undefined

  /** Starts `open`, which puts a channel here, unless one is under way. Its failure is that of everyone who waits. */
  startOpening(
    fork: Fork,
    open: Effect.Effect<void, AmqpError>,
    givenUp: AmqpError
  ): Deferred.Deferred<void, AmqpError> {
    if (this.opening !== undefined) return this.opening
    const opening = Deferred.makeUnsafe<void, AmqpError>()
    const done = (result: Effect.Effect<void, AmqpError>) =>
      Effect.sync(() => {
        if (this.opening === opening) this.opening = this.#opener = undefined
        Deferred.doneUnsafe(opening, result)
      })
    this.opening = opening
    const opener = fork(
      Effect.onInterrupt(
        Effect.flatMap(Effect.exit(open), (exit) => done(exit)),
        () => done(Effect.fail(givenUp))
      )
    )
    // It may have ended already: nothing of it is kept.
    if (this.opening === opening) this.#opener = opener
    return opening
  }

  /** Puts a channel here that has opened just now. */
  fill(channel: Channel, now: number, maxAge: number): void {
    this.channel = channel
    this.openedAt = this.idleSince = now
    this.maxAge = maxAge
  }

  /** Whether its channel is past its age, and not to be lent again. */
  isOld(now: number): boolean {
    return now - this.openedAt >= this.maxAge
  }

  /** Takes a channel from another place instead of the one whose opening has to wait. */
  takeOver(from: Slot<Lease>): void {
    const { opening } = this
    this.channel = from.channel
    this.openedAt = from.openedAt
    this.maxAge = from.maxAge
    this.idleSince = from.idleSince
    from.channel = undefined
    this.opening = undefined
    if (opening !== undefined) Deferred.doneUnsafe(opening, Effect.void)
    this.#opener?.interruptUnsafe()
    this.#opener = undefined
  }

  /** Ends an opening under way: whoever waits for it fails, and the channel is closed when it arrives. */
  abandonOpening(): void {
    if (this.opening !== undefined) this.#opener?.interruptUnsafe()
  }

  /** Takes the channel out and runs `close` on it; `closing` until that is done. */
  startClosing(fork: Fork, close: (channel: Channel) => Effect.Effect<void>): void {
    const channel = this.channel
    this.channel = undefined
    if (channel === undefined || channel.hasEnded) return
    this.startLeaving(fork, close(channel))
  }

  /** The place stays taken until `left` has completed: that of a channel which closes, or whose opening was given up. */
  startLeaving(fork: Fork, left: Effect.Effect<void>): void {
    const closing = Deferred.makeUnsafe<void>()
    this.closing = closing
    fork(
      Effect.ensuring(
        left,
        Effect.sync(() => {
          this.closing = undefined
          Deferred.doneUnsafe(closing, Effect.void)
        })
      )
    )
  }
}
