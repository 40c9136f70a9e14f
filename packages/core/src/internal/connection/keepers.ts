/**
 * What an application keeps on the broker: queues and exchanges that its topology layers declare again when they are
 * missing. Channels report what the broker says about missing names, and consumers ask whether their queue will be back.
 */
import * as Effect from "effect/Effect"
import type * as Reason from "../../model/errorReason.ts"

export type Kept = "queue" | "exchange"

/** One topology that is declared again. None of these may throw: they are called from the driver's event handlers. */
export interface Keeper {
  readonly keeps: (kind: Kept, name: string) => boolean
  /** The broker has said that one of these is missing. */
  readonly missing: (kind: Kept, name: string) => void
  /** A mandatory message to one of its exchanges reached no queue. */
  readonly unroutable: () => void
  /** Declares again for a consumer of this queue; completes when that is done or has failed, within a bound. */
  readonly restore: (queue: string) => Effect.Effect<void>
}

const absence = /\bno (queue|exchange) '(.*)' in vhost '/s

/**
 * Whether a 404 says that a queue or an exchange is absent. A queue whose node is down (`home node 'rabbit@b' of durable
 * queue 'q' in vhost '/' is down or inaccessible`), or whose process has crashed or does not answer, exists: it comes back.
 */
export const isAbsence = (reason: Reason.AmqpErrorReason): boolean =>
  reason._tag === "NotFound" &&
  !/ is down or inaccessible| has crashed and failed to restart|process is stopped/.test(reason.message)

export class Keepers {
  readonly #all = new Set<Keeper>()

  add(keeper: Keeper): void {
    this.#all.add(keeper)
  }

  remove(keeper: Keeper): void {
    this.#all.delete(keeper)
  }

  keeps(kind: Kept, name: string): boolean {
    for (const keeper of this.#all) if (keeper.keeps(kind, name)) return true
    return false
  }

  /** The broker has closed a channel for this reason. */
  closedBy(reason: Reason.AmqpErrorReason): void {
    if (this.#all.size === 0 || reason._tag !== "NotFound") return
    const [, kind, name] = absence.exec(reason.message) ?? []
    if (kind !== undefined && name !== undefined) this.missing(kind as Kept, name)
  }

  missing(kind: Kept, name: string): void {
    for (const keeper of this.#all) if (keeper.keeps(kind, name)) keeper.missing(kind, name)
  }

  /** The broker has returned a mandatory message as unroutable. */
  returned(exchange: string, routingKey: string): void {
    if (this.#all.size === 0) return
    // The default exchange routes by the queue's name.
    if (exchange === "") return this.missing("queue", routingKey)
    for (const keeper of this.#all) if (keeper.keeps("exchange", exchange)) keeper.unroutable()
  }

  /** Declares a queue again, if one of these topologies has it. Whether one has. */
  restore(queue: string): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      const keepers = Array.from(this.#all).filter((keeper) => keeper.keeps("queue", queue))
      return Effect.as(
        Effect.forEach(keepers, (keeper) => keeper.restore(queue), { discard: true }),
        keepers.length > 0
      )
    })
  }
}
