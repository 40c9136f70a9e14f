import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { TestBrokerError } from "../TestBrokerError.ts"
import type { Coordinates } from "./broker.ts"
import * as Lobby from "./lobby.ts"
import * as Resolve from "./resolve.ts"

/** How long a broker that nobody uses waits for the next user: test files build and close layers one after another. */
const idleMillis = 10_000

interface Held {
  readonly coordinates: Coordinates
  readonly scope: Scope.Closeable
  users: number
  idle: NodeJS.Timeout | undefined
}

const starting = Semaphore.makeUnsafe(1)
let held: Held | undefined

const hold = Effect.gen(function* () {
  if (held === undefined) {
    const scope = Scope.makeUnsafe()
    const coordinates = yield* Resolve.first(Resolve.ways({ exclusive: false })).pipe(
      Scope.provide(scope),
      Effect.onError(() => Scope.close(scope, Exit.void))
    )
    held = { coordinates, scope, users: 0, idle: undefined }
  }
  clearTimeout(held.idle)
  held.users++
  return held
})

const letGo = (mine: Held) =>
  Effect.sync(() => {
    if (--mine.users > 0) return
    // Does not keep the process alive: if it ends first, the broker goes with it.
    mine.idle = setTimeout(() => {
      if (mine.users > 0) return
      if (held === mine) held = undefined
      Effect.runFork(Scope.close(mine.scope, Exit.void))
    }, idleMillis).unref()
  })

/** The broker of this test run, or else of this process, started for the first who asks. */
export const broker: Effect.Effect<Coordinates, TestBrokerError, Scope.Scope> =
  Lobby.ask ??
  Effect.map(
    Effect.acquireRelease(Semaphore.withPermit(starting, hold), letGo, { interruptible: true }),
    ({ coordinates }) => coordinates
  )
