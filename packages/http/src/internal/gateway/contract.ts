/** What the gateway asks its owner, and what clients may ask for. */
import type * as ByteSize from "effect/ByteSize"
import type * as Duration from "effect/Duration"

/** What a request wants to do, and to what. */
export type Access =
  | {
      readonly action: "publish"
      /** `""` is the default exchange, which routes to the queue named by the routing key: any queue. */
      readonly exchange: string
      readonly routingKey: string
    }
  | { readonly action: "consume"; readonly queue: string }
  /** Settles a delivery of a stream whose id the client knows. */
  | { readonly action: "settle"; readonly queue: string }
  | { readonly action: "request"; readonly queue: string }

/** Whether it may: `"allow"`; `"deny"`, 403; `"authenticate"`, 401, since it is not known who it is. */
export type Decision = "allow" | "deny" | "authenticate"

/** What clients may ask for at most. */
export interface Limits {
  /** The largest body of a request, a whole batch included. Larger ones are answered with 413. At least one byte. */
  readonly body: ByteSize.Input
  /** Lines of a batch, empty ones included: 1 to 1,000,000. A longer batch is answered with 413. Default: 10,000. */
  readonly lines?: number | undefined
  /**
   * Levels of JSON, arrays and objects in one another, in a line of a batch and in `amqp-headers`: 1 to 512. What is deeper is
   * answered with 400, a line by itself. Default: 64.
   */
  readonly depth?: number | undefined
  /** Unsettled deliveries a stream: 1 to 65535. Clients may ask for fewer. */
  readonly prefetch: number
  /**
   * How long a stream goes on without a delivery that its client takes or settles (it ends within twice this time), how
   * long the body of a request may take, and how long a reply is waited for. 1 ms to 24.8 days.
   */
  readonly idle: Duration.Input
  /** Streams that are open at a time, WebSockets included. Further ones are answered with 503. At least 1. */
  readonly streams: number
  /** The longest silence of a stream, after which a heartbeat is sent. Default: 15 seconds. */
  readonly heartbeat?: Duration.Input | undefined
  /** How long a stream waits for a client that comes back. Default: 30 seconds. */
  readonly resume?: Duration.Input | undefined
  /**
   * Memory for the events of one stream that are sent again to a client that comes back (`ack=delivery`): the last ones, at
   * most `prefetch`, two bytes a character. At most twice `streams` have some. From 0 bytes, which is none. Default: 256 KiB.
   */
  readonly missed?: ByteSize.Input | undefined
}
