/** The versions of RabbitMQ that the memory broker plays, and where they differ. */
import { protocolHeader } from "./frameReader.ts"

/**
 * A version of RabbitMQ that a memory broker plays.
 *
 * **When to use**
 *
 * Use to test with the behavior of the version in production, where the two differ: in what counts as a failed delivery,
 * in default limits, and in the headers of dead letters.
 *
 * @category models
 * @since 0.1.0
 */
export type Version = "4.3" | "3.10"

export interface Behavior {
  /** The version that the broker reports. */
  readonly product: string
  /** Delivery limit of a quorum queue that is declared without one. */
  readonly deliveryLimit: number | undefined
  /** Whether a negative delivery limit is none. Otherwise it is zero. */
  readonly hasUnlimitedDeliveries: boolean
  /** Whether `basic.nack` with requeue counts as a failed delivery of a quorum queue. */
  readonly nackCounts: boolean
  /** Whether deaths are kept apart from the headers, so that a publisher's `x-death` is not one. */
  readonly hasDeathRecords: boolean
  /** Whether `basic.qos` with `global` limits a channel. Otherwise it is read as without. */
  readonly hasGlobalPrefetch: boolean
  /** Whether the queue of a direct reply is a route, so that a mandatory reply is not returned. */
  readonly routesReplies: boolean
  /** Whether a quorum queue orders its messages by their priority. */
  readonly hasQuorumPriorities: boolean
  /**
   * Whether a dead letter of a quorum queue takes its count of failed deliveries into another one, where it counts on, and
   * whether `basic.reject` counts as a failed delivery also without requeue.
   */
  readonly carriesFailures: boolean
  /**
   * Whether a quorum queue looks for expired messages at the head of those that came back, and of each priority. Otherwise it
   * looks at the message that is delivered next only.
   */
  readonly expiresAtEachHead: boolean
  /** Whether headers are sorted by their names. */
  readonly sortsHeaders: boolean
  /** Whether the properties of a message count as a part of its size in a quorum queue. */
  readonly countsProperties: boolean
  /** The first bytes that it answers to a client of a protocol that it does not have: those of one that it has. */
  readonly offersProtocol: Buffer
  /** The smallest frame-max that it accepts, and the one of a handshake. */
  readonly leastFrameMax: number
  /**
   * What ends when a delivery is not settled within the consumer timeout: its channel (406), or only its consumer, and
   * only that of a quorum queue.
   */
  readonly timeoutEnds: "channel" | "consumer"
  /** Whether a body of more bytes than its header announces is an error. Otherwise the broker waits for further ones. */
  readonly refusesLongBodies: boolean
  /** Maximum body size of a message, in bytes. */
  readonly maxMessageSize: number
}

export const behaviors: Readonly<Record<Version, Behavior>> = {
  "4.3": {
    product: "4.3.6",
    deliveryLimit: 20,
    hasUnlimitedDeliveries: true,
    nackCounts: false,
    hasDeathRecords: true,
    hasGlobalPrefetch: false,
    routesReplies: true,
    hasQuorumPriorities: true,
    countsProperties: true,
    expiresAtEachHead: true,
    sortsHeaders: true,
    carriesFailures: true,
    // AMQP 1.0, over SASL.
    offersProtocol: Buffer.from([0x41, 0x4d, 0x51, 0x50, 3, 1, 0, 0]),
    leastFrameMax: 8192,
    timeoutEnds: "consumer",
    refusesLongBodies: true,
    maxMessageSize: 16_777_216
  },
  "3.10": {
    product: "3.10.8",
    deliveryLimit: undefined,
    hasUnlimitedDeliveries: false,
    nackCounts: true,
    hasDeathRecords: false,
    hasGlobalPrefetch: true,
    routesReplies: false,
    hasQuorumPriorities: false,
    countsProperties: false,
    expiresAtEachHead: false,
    sortsHeaders: false,
    carriesFailures: false,
    offersProtocol: protocolHeader,
    leastFrameMax: 4096,
    timeoutEnds: "channel",
    refusesLongBodies: false,
    maxMessageSize: 134_217_728
  }
}
