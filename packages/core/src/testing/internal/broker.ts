import type * as Effect from "effect/Effect"
import type { TestBrokerError } from "../TestBrokerError.ts"

/**
 * The source of a broker.
 *
 * **When to use**
 *
 * Use to skip tests that need a particular source, such as a private node.
 *
 * **Details**
 *
 * - `url`: the broker at `AMQP_URL`.
 * - `binary`: an installed `rabbitmq-server`, as a private process.
 * - `container`: a container.
 * - `package`: the distribution's package, as a private process.
 * - `memory`: a `MemoryBroker`, which is no RabbitMQ.
 *
 * @category models
 * @since 0.1.0
 */
export type Origin = "url" | "binary" | "container" | "package" | "memory"

/** The address of the evaluation server inside a broker's node, see `control.ts`. */
export interface Control {
  readonly host: string
  readonly port: number
  readonly token: string
}

/** A `rabbitmqctl` command that reaches the broker. With `inNode` it must run where the broker runs. */
export interface Cli {
  readonly command: string
  readonly args: ReadonlyArray<string>
  readonly env: Readonly<Record<string, string>> | "inherit" | "inNode"
}

/**
 * The process ids and the folder of a private node.
 *
 * **When to use**
 *
 * Use in tests that pause or crash the node, or that verify that its processes and its folder are gone.
 *
 * @category models
 * @since 0.1.0
 */
export interface Processes {
  /** The process id of the supervisor, the parent of the other two. */
  readonly supervisor: number
  /** The process id of the node. */
  readonly server: number
  /** The process id of the node's epmd. */
  readonly epmd: number
  /** The node's temporary folder. */
  readonly directory: string
}

/**
 * Everything that is needed to use a running broker: plain data, so that one process can start the broker and others
 * use it.
 */
export interface Coordinates {
  readonly origin: Origin
  readonly url: string
  readonly description: string
  readonly control?: Control | undefined
  readonly cli?: Cli | undefined
  readonly processes?: Processes | undefined
}

/** A running broker with its two controls. */
export interface Broker extends Coordinates {
  readonly evaluate: (erlang: string) => Effect.Effect<string, TestBrokerError>
  readonly ctl: (...args: ReadonlyArray<string>) => Effect.Effect<string, TestBrokerError>
}
