/** Faults of connections: by the network, in the form of a proxy, and by the broker. */
import { Effect } from "effect"
import type { TestBroker } from "@effect-amqp/core/testing"
import type { FaultProxy } from "../test/support/FaultProxy.ts"
import type { Random } from "./random.ts"

/** Where faults are made, and how to wait until they are noticed. */
export interface Site {
  readonly proxy: FaultProxy
  readonly broker: TestBroker.TestBroker["Service"]
  readonly random: Random
  /** Completes when the publishers' connection is not open, or after some seconds. */
  readonly noticed: Effect.Effect<void>
}

export interface Fault {
  /** Makes the fault and ends it. When it completes, nothing prevents recovery. */
  readonly make: (site: Site) => Effect.Effect<void, unknown>
  /** Whether connections end because of it. */
  readonly cuts: boolean
}

type Make = Fault["make"]

const cutting = (make: Make): Fault => ({ make, cuts: true })
const passing = (make: Make): Fault => ({ make, cuts: false })

const pause = (random: Random, least: number, most: number) => Effect.sleep(random.between(least, most))

const directions = ["up", "down", "both"] as const

/** A fault of the proxy that is ended by `heal`. */
const whilst = (begin: (site: Site) => void, lasting: (site: Site) => Effect.Effect<void>): Make =>
  Effect.fnUntraced(function* (site) {
    yield* Effect.sync(() => begin(site))
    yield* Effect.ensuring(
      lasting(site),
      Effect.sync(() => site.proxy.heal())
    )
  })

export const faults: Readonly<Record<string, Fault>> = {
  // Both connections are reset while they send.
  reset: cutting(({ proxy }) => Effect.sync(() => proxy.rst())),
  "end of stream": cutting(({ proxy, random }) => Effect.sync(() => proxy.fin(random.one(["up", "down"])))),
  "reset after some bytes": cutting(
    Effect.fnUntraced(function* (site) {
      const { proxy, random } = site
      const { reset } = proxy.stats
      proxy.cutAfter(1 + random.below(20_000), random.one(["up", "down"]))
      yield* proxy.until((stats) => stats.reset > reset).pipe(Effect.timeoutOption("2 seconds"))
      proxy.heal()
      if (proxy.stats.reset === reset) proxy.rst()
    })
  ),
  "reset, and refused for a while": cutting(
    whilst(
      ({ proxy }) => {
        proxy.refuse()
        proxy.rst()
      },
      ({ random }) => pause(random, 50, 500)
    )
  ),
  // Reset at once after the handshake, again and again.
  "reset while it reconnects": cutting(
    Effect.fnUntraced(function* ({ proxy, random }) {
      for (let again = 0; again < 3; again++) {
        proxy.rst()
        yield* pause(random, 20, 150)
      }
    })
  ),
  // Nothing passes, and no end is reported: only the heartbeat notices it.
  "silence until it is noticed": cutting(
    whilst(
      ({ proxy, random }) => proxy.stall(random.one(directions)),
      ({ noticed }) => noticed
    )
  ),
  "silence for a moment": passing(
    whilst(
      ({ proxy, random }) => proxy.stall(random.one(directions)),
      ({ random }) => pause(random, 50, 600)
    )
  ),
  // Bytes are swallowed, so the stream has a gap. It cannot be repaired, and is reset.
  "bytes lost": cutting(
    whilst(
      ({ proxy, random }) => proxy.drop(random.one(directions)),
      ({ proxy, random }) =>
        Effect.andThen(
          pause(random, 20, 300),
          Effect.sync(() => proxy.rst())
        )
    )
  ),
  delay: passing(
    whilst(
      ({ proxy, random }) => proxy.delay(random.between(5, 200)),
      ({ random }) => pause(random, 100, 600)
    )
  ),
  throttle: passing(
    whilst(
      ({ proxy, random }) => proxy.rate(random.between(20_000, 200_000)),
      ({ random }) => pause(random, 100, 600)
    )
  ),
  "few bytes at a time": passing(
    whilst(
      ({ proxy, random }) => proxy.chop(random.between(1, 9)),
      ({ random }) => pause(random, 50, 200)
    )
  ),
  "closed by the broker": cutting(({ broker }) => broker.closeConnections("chaos")),
  "killed in the broker": cutting(({ broker }) => broker.killConnections),
  "publishers blocked": passing(({ broker, random }) =>
    Effect.acquireUseRelease(
      broker.blockPublishers,
      () => pause(random, 50, 500),
      () => Effect.orDie(broker.unblockPublishers)
    )
  )
}

// How often each fault occurs among the others. Silence takes seconds to be noticed, and the broker's tool a second to
// start.
const rare = new Set([
  "silence until it is noticed",
  "closed by the broker",
  "killed in the broker",
  "publishers blocked"
])

/** A fault for each turn: every kind once in the first turns, and then random kinds. */
export const sequence = (random: Random, count: number): ReadonlyArray<string> => {
  const names = Object.keys(faults)
  const weighted = names.flatMap((name) => (rare.has(name) ? [name] : [name, name, name, name]))
  return Array.from({ length: count }, (_, turn) => names[turn] ?? random.one(weighted))
}
