/**
 * What an application knows about queues, because it has declared them.
 *
 * AMQP has no method that tells a queue's type or arguments. Rules that depend on them (what may be sent to a stream,
 * whether a rejected message is kept, whether the queue counts deliveries) use what was declared here, and otherwise what
 * the caller states by an option. A queue that another application declares, or whose arguments a policy sets, is unknown.
 */
import type { FieldTable } from "../../model/message.ts"
import { offsetName } from "../wire/streams.ts"

/** A queue as it was declared. Every argument is the one that was sent; `undefined`: it was not. */
export interface KnownQueue {
  readonly durable: boolean
  readonly exclusive: boolean
  readonly autoDelete: boolean
  readonly arguments: FieldTable
}

/** The type of a known queue; `undefined` if the declaration left it to the virtual host's default. */
export const typeOf = (queue: KnownQueue | undefined): "classic" | "quorum" | "stream" | undefined => {
  const type = queue?.arguments["x-queue-type"]
  return type === "classic" || type === "quorum" || type === "stream" ? type : undefined
}

/** How many queues are kept. Applications that declare a queue per request must not grow without bound. */
const capacity = 10_000

/** The queues that one application has declared, on all of its connections to one broker. */
export class KnownQueues {
  /** In the order of their last declaration: the first one gives way. */
  readonly #queues = new Map<string, KnownQueue>()

  get(name: string): KnownQueue | undefined {
    return this.#queues.get(name)
  }

  /** The broker has confirmed this declaration. */
  declared(name: string, queue: KnownQueue): void {
    this.#queues.delete(name)
    this.#queues.set(name, queue)
    if (this.#queues.size > capacity) {
      for (const first of this.#queues.keys()) return this.forget(first)
    }
  }

  /** The queue was deleted, or its absence was noticed. */
  forget(name: string): void {
    this.#queues.delete(name)
  }
}

/**
 * Whether a queue is a stream, as far as that is known: this application has declared it so, or it is consumed with an
 * offset, which no other type takes.
 */
export const isStream = (queues: KnownQueues | undefined, queue: string, consuming?: FieldTable): boolean =>
  (consuming !== undefined && consuming[offsetName] !== undefined) || typeOf(queues?.get(queue)) === "stream"
