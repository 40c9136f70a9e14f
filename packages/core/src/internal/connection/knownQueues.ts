/**
 * The queues that an application knows because it has declared them.
 * AMQP has no method that returns a queue's type or arguments. Rules that depend on them (what may be sent to a stream,
 * whether a rejected message is kept, whether the queue counts deliveries) use the declarations recorded here, and
 * otherwise the caller's options. A queue that another application declares, or whose arguments a policy sets, is
 * unknown.
 */
import type { FieldTable } from "../../model/message.ts"
import { offsetName } from "../wire/streams.ts"

/**
 * A queue as it was declared. `arguments` has the values that were sent; an argument that was not sent is `undefined`.
 */
export interface KnownQueue {
  readonly durable: boolean
  readonly exclusive: boolean
  readonly autoDelete: boolean
  readonly arguments: FieldTable
}

/** Returns the type of a known queue; `undefined` if the declaration left it to the virtual host's default. */
export const typeOf = (queue: KnownQueue | undefined): "classic" | "quorum" | "stream" | undefined => {
  const type = queue?.arguments["x-queue-type"]
  return type === "classic" || type === "quorum" || type === "stream" ? type : undefined
}

/** Maximum number of queues recorded. An application that declares a queue per request must not grow without bound. */
const capacity = 10_000

/** The queues that one application has declared, on all of its connections to one broker. */
export class KnownQueues {
  /** In the order of the last declaration: the first one is forgotten first. */
  readonly #queues = new Map<string, KnownQueue>()

  get(name: string): KnownQueue | undefined {
    return this.#queues.get(name)
  }

  /** Records a declaration that the broker has confirmed. */
  declared(name: string, queue: KnownQueue): void {
    this.#queues.delete(name)
    this.#queues.set(name, queue)
    if (this.#queues.size > capacity) {
      for (const first of this.#queues.keys()) return this.forget(first)
    }
  }

  /** Forgets a queue that was deleted or found missing. */
  forget(name: string): void {
    this.#queues.delete(name)
  }
}

/**
 * Whether a queue is known to be a stream: this application has declared it so, or consumes it with an offset, which no
 * other type accepts.
 */
export const isStream = (queues: KnownQueues | undefined, queue: string, consuming?: FieldTable): boolean =>
  (consuming !== undefined && consuming[offsetName] !== undefined) || typeOf(queues?.get(queue)) === "stream"
