import type * as Effect from "effect/Effect"
import type { TestBrokerError } from "../TestBrokerError.ts"

/** How a broker was come by. */
export type Origin = "url" | "binary" | "container" | "package"

/** Where the evaluation server inside a broker's node listens, see `control.ts`. */
export interface Control {
  readonly host: string
  readonly port: number
  readonly token: string
}

/** A `rabbitmqctl` that reaches the broker. `inNode` is one that has to be run where the broker runs. */
export interface Cli {
  readonly command: string
  readonly args: ReadonlyArray<string>
  readonly env: Readonly<Record<string, string>> | "inherit" | "inNode"
}

/** The processes and the folder of a private node, for those who want to make sure that they are gone. */
export interface Processes {
  readonly supervisor: number
  readonly server: number
  readonly epmd: number
  readonly directory: string
}

/** All that is needed to use a running broker: plain data, so that one process can start it and others use it. */
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
