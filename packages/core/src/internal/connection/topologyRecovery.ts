/**
 * The queues and exchanges that an application's topology layers declare again when they are missing. Channels report
 * names that the broker does not find, and consumers ask whether their queue will be declared again.
 */
import * as Effect from "effect/Effect"
import type * as Reason from "../../model/errorReason.ts"

export type RecoverableKind = "queue" | "exchange"

/** One topology that is declared again. Its members must not throw, because the driver's event handlers call them. */
export interface RecoverableTopology {
  readonly declares: (kind: RecoverableKind, name: string) => boolean
  /** The broker has reported that one of the topology's queues or exchanges is missing. */
  readonly onMissing: (kind: RecoverableKind, name: string) => void
  /** A mandatory message to one of the topology's exchanges reached no queue. */
  readonly onUnroutable: () => void
  /**
   * Declares the topology again for a consumer of this queue. Completes when that is done or has failed, within a
   * bound.
   */
  readonly recover: (queue: string) => Effect.Effect<void>
}

const absence = /\bno (queue|exchange) '(.*)' in vhost '/s

/**
 * Whether a 404 states that a queue or an exchange does not exist. A queue whose node is down (`home node 'rabbit@b' of
 * durable queue 'q' in vhost '/' is down or inaccessible`), or whose process has crashed or does not answer, exists and
 * becomes available again.
 */
export const isMissingEntity = (reason: Reason.AmqpErrorReason): boolean =>
  reason._tag === "NotFound" &&
  !/ is down or inaccessible| has crashed and failed to restart|process is stopped/.test(reason.message)

export class TopologyRecovery {
  readonly #all = new Set<RecoverableTopology>()

  add(topology: RecoverableTopology): void {
    this.#all.add(topology)
  }

  remove(topology: RecoverableTopology): void {
    this.#all.delete(topology)
  }

  declares(kind: RecoverableKind, name: string): boolean {
    for (const topology of this.#all) if (topology.declares(kind, name)) return true
    return false
  }

  /** Handles a channel that the broker closed for this reason. */
  closedBy(reason: Reason.AmqpErrorReason): void {
    if (this.#all.size === 0 || reason._tag !== "NotFound") return
    const [, kind, name] = absence.exec(reason.message) ?? []
    if (kind !== undefined && name !== undefined) this.missing(kind as RecoverableKind, name)
  }

  missing(kind: RecoverableKind, name: string): void {
    for (const topology of this.#all) if (topology.declares(kind, name)) topology.onMissing(kind, name)
  }

  /** Handles a mandatory message that the broker returned as unroutable. */
  returned(exchange: string, routingKey: string): void {
    if (this.#all.size === 0) return
    // The default exchange routes by queue name.
    if (exchange === "") return this.missing("queue", routingKey)
    for (const topology of this.#all) if (topology.declares("exchange", exchange)) topology.onUnroutable()
  }

  /** Declares a queue again, if a topology has it. Succeeds with whether one has. */
  recover(queue: string): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      const topologies = Array.from(this.#all).filter((topology) => topology.declares("queue", queue))
      return Effect.as(
        Effect.forEach(topologies, (topology) => topology.recover(queue), { discard: true }),
        topologies.length > 0
      )
    })
  }
}
