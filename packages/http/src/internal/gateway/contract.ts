/** What the gateway asks the application to decide, and what clients may ask for at most. */
import type * as ByteSize from "effect/ByteSize"
import type * as Duration from "effect/Duration"

/**
 * What a request asks for, as `authorize` sees it: an action and its target.
 *
 * **When to use**
 *
 * Use in an `authorize` function, to decide by the exchange, the routing key or the queue that a request names.
 *
 * **Details**
 *
 * Names are percent-decoded. `consume` covers server-sent events and WebSockets, `settle` a request that settles one
 * delivery, `request` an RPC request.
 *
 * **Gotchas**
 *
 * The default exchange (`exchange: ""`) routes to every queue by its name. Check the routing key where you allow it.
 *
 * @category models
 * @since 0.1.0
 */
export type Access =
  | {
      readonly action: "publish"
      /** The exchange's name. `""` is the default exchange, which routes to any queue by its name (the routing key). */
      readonly exchange: string
      readonly routingKey: string
    }
  | { readonly action: "consume"; readonly queue: string }
  /** Settles one delivery of a stream. The client knows the delivery's id. */
  | { readonly action: "settle"; readonly queue: string }
  | { readonly action: "request"; readonly queue: string }

/**
 * The answer of `authorize`: whether a request may do what it asks for.
 *
 * **When to use**
 *
 * Use as the success type of an `authorize` effect that is written apart from the call of the layer.
 *
 * **Details**
 *
 * `"allow"` serves the request. `"deny"` is answered with 403. `"authenticate"` is answered with 401 and the
 * `WWW-Authenticate` of `challenge`, because the sender of the request is unknown.
 *
 * @category models
 * @since 0.1.0
 */
export type Decision = "allow" | "deny" | "authenticate"

/**
 * Bounds on what clients of the gateway may ask for.
 *
 * **When to use**
 *
 * Use as the option `limits`, which the gateway requires. Choose `body`, `prefetch`, `idleTimeout` and `streams` by the
 * memory of the process: a stream takes up to `prefetch` times the largest message, plus `replayBuffer`.
 *
 * **Details**
 *
 * A value out of bounds, or a name that is unknown, is a mistake in the program. The layer dies while it is built, with
 * an error that names the limit.
 *
 * @category models
 * @since 0.1.0
 */
export interface Limits {
  /** Maximum size of a request's body, in bytes; a batch counts as a whole. Larger ones get a 413. At least 1 byte. */
  readonly body: ByteSize.Input
  /**
   * Maximum number of lines in a batch, empty ones included. A longer batch gets a 413. 1 to 1,000,000. Default:
   * 10,000.
   */
  readonly batchLines?: number | undefined
  /**
   * Maximum nesting of arrays and objects in JSON, for a line of a batch and for `amqp-headers`. Deeper JSON gets a
   * 400; in a batch, this concerns that line only. 1 to 512 levels. Default: 64.
   */
  readonly jsonDepth?: number | undefined
  /** Maximum number of unsettled deliveries per stream, 1 to 65535. Clients may ask for fewer. */
  readonly prefetch: number
  /**
   * How long a stream lasts while its client neither takes nor settles a delivery (it ends within twice this time), how
   * long the body of a request may take, and how long an RPC request waits for its reply. From 1 millisecond to 24.8
   * days.
   */
  readonly idleTimeout: Duration.Input
  /** Maximum number of streams that are open at once, WebSockets included. Further ones get a 503. At least 1. */
  readonly streams: number
  /** Silence of a stream after which a heartbeat is sent. From 1 millisecond to 24.8 days. Default: 15 seconds. */
  readonly heartbeatInterval?: Duration.Input | undefined
  /** How long a stream waits for its client to reconnect. From 1 millisecond to 24.8 days. Default: 30 seconds. */
  readonly resumeTimeout?: Duration.Input | undefined
  /**
   * Memory per stream for events that are sent again to a client that reconnects (`ack=delivery`), in bytes. It holds
   * the last events, at most `prefetch`, at two bytes per character. At most twice `streams` streams use it. 0 disables
   * it. Default: 256 KiB.
   */
  readonly replayBuffer?: ByteSize.Input | undefined
}
