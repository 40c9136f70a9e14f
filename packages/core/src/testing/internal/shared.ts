import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { TestBrokerError } from "../TestBrokerError.ts"
import type { Coordinates } from "./broker.ts"
import * as Lobby from "./lobby.ts"
import * as Resolve from "./resolve.ts"

/**
 * How long an unused broker waits for the next user, in milliseconds: test files build and close layers one after
 * another.
 */
const idleMillis = 10_000

interface SharedBroker {
  readonly coordinates: Coordinates
  readonly scope: Scope.Closeable
  users: number
  idle: NodeJS.Timeout | undefined
}

const starting = Semaphore.makeUnsafe(1)
let shared: SharedBroker | undefined

const acquire = Effect.gen(function* () {
  if (shared === undefined) {
    const scope = Scope.makeUnsafe()
    const coordinates = yield* Resolve.first(Resolve.ways({ exclusive: false })).pipe(
      Scope.provide(scope),
      Effect.onError(() => Scope.close(scope, Exit.void))
    )
    shared = { coordinates, scope, users: 0, idle: undefined }
  }
  clearTimeout(shared.idle)
  shared.users++
  return shared
})

const release = (mine: SharedBroker) =>
  Effect.sync(() => {
    if (--mine.users > 0) return
    // The timer does not keep the process alive: if the process ends first, the broker ends with it.
    mine.idle = setTimeout(() => {
      if (mine.users > 0) return
      if (shared === mine) shared = undefined
      Effect.runFork(Scope.close(mine.scope, Exit.void))
    }, idleMillis).unref()
  })

/** The broker of this test run, or otherwise of this process. It is started for its first user. */
export const broker: Effect.Effect<Coordinates, TestBrokerError, Scope.Scope> =
  Lobby.ask ??
  Effect.map(
    Effect.acquireRelease(Semaphore.withPermit(starting, acquire), release, { interruptible: true }),
    ({ coordinates }) => coordinates
  )
