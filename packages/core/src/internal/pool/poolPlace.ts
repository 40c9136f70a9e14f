/**
 * A place of the pool and the channel in it, if there is one.
 *
 * Effect's `Pool` leases places, and the channel in a place can be replaced. So a borrower keeps its place, and its
 * turn, while a closed channel is replaced. A place never has two channels: the next one is opened after the last one
 * has closed.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { AmqpError } from "../../model/error.ts"
import type { Channel } from "../channel/channel.ts"
import type { Fork } from "../waiting/fork.ts"

export class PoolPlace<Lease> {
  channel: Channel | undefined = undefined
  /** When the channel opened, in milliseconds of the pool's clock. */
  openedAt = 0
  /** How old the channel may become, in milliseconds. */
  maxAge = Infinity
  /** Since when the channel has been idle, in milliseconds of the pool's clock. */
  idleSince = 0
  /** The lease that holds this place. */
  lease: Lease | undefined = undefined
  /** The opening in progress. It continues when its borrower leaves, and its channel serves the next one. */
  opening: Deferred.Deferred<void, AmqpError> | undefined = undefined
  /** The closing in progress. The next opening waits for it. */
  closing: Deferred.Deferred<void> | undefined = undefined

  /** Whether a channel can be opened in this place. */
  get isEmpty(): boolean {
    return this.channel === undefined && this.opening === undefined && this.closing === undefined
  }

  #opener: Fiber.Fiber<void> | undefined = undefined

  /** Runs `open`, which puts a channel here, unless an opening is in progress. A failure fails all that wait for it. */
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
    // The opening may have ended within `fork`; then there is nothing to keep.
    if (this.opening === opening) this.#opener = opener
    return opening
  }

  /** Puts a channel here that has just opened. */
  fill(channel: Channel, now: number, maxAge: number): void {
    this.channel = channel
    this.openedAt = this.idleSince = now
    this.maxAge = maxAge
  }

  /** Whether the channel has reached its maximum age and must not be leased again. */
  isOld(now: number): boolean {
    return now - this.openedAt >= this.maxAge
  }

  /** Takes the channel of another place, and gives up this place's own opening, which waits for a channel permit. */
  takeOver(from: PoolPlace<Lease>): void {
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

  /** Gives up an opening in progress. All that wait for it fail, and its channel is closed once it has opened. */
  abandonOpening(): void {
    if (this.opening !== undefined) this.#opener?.interruptUnsafe()
  }

  /** Removes the channel and runs `close` on it. `closing` is set until `close` completes. */
  startClosing(fork: Fork, close: (channel: Channel) => Effect.Effect<void>): void {
    const channel = this.channel
    this.channel = undefined
    if (channel === undefined || channel.hasEnded) return
    this.startLeaving(fork, close(channel))
  }

  /** Sets `closing` until `left` completes: the channel closes, or its opening was given up. */
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
