/** A broker in memory for an example that runs as a process of its own. */
import { MemoryBroker, type TestBroker } from "@effect-amqp/core/testing"
import { Effect, type Scope } from "effect"
import { type Program, run } from "./program.ts"

export interface OnMemory {
  readonly program: Program
  readonly queues: Effect.Effect<ReadonlyArray<MemoryBroker.MemoryQueue>>
  /** Closes the connections that the program has left open, and returns their number. */
  readonly leftOpen: Effect.Effect<number>
}

/** Runs an example on a new broker in memory. */
export const runOnMemory = (
  file: string,
  env: Record<string, string> = {}
): Effect.Effect<OnMemory, TestBroker.TestBrokerError, Scope.Scope> =>
  Effect.gen(function* () {
    const broker = yield* MemoryBroker.make({ keepsPublished: false })
    const program = yield* run(file, { AMQP_URL: yield* broker.listen(), ...env })
    return { program, queues: broker.queues, leftOpen: broker.close() }
  })
