/** The sockets of this process, as Node counts them. */
import { Effect, Schedule } from "effect"
import type { Socket } from "node:net"

// This is undocumented, and the only list that there is.
const handles = () =>
  (process as unknown as { _getActiveHandles: () => ReadonlyArray<Partial<Socket>> })._getActiveHandles()

/** The open sockets of this process to a port. */
export const handlesTo = (port: number): ReadonlyArray<Partial<Socket>> =>
  handles().filter((handle) => handle.remotePort === port && handle.destroyed === false)

/** The number of open sockets of this process to a port. */
const socketsTo = (port: number): number => handlesTo(port).length

/** Waits until this process has no socket to a port; at most 4 seconds. */
export const noneTo = (port: number): Effect.Effect<void> =>
  Effect.sync(() => socketsTo(port)).pipe(
    Effect.repeat({ until: (count) => count === 0, schedule: Schedule.spaced("1 millis") }),
    Effect.timeoutOrElse({
      duration: "4 seconds",
      orElse: () => Effect.die(new Error(`${socketsTo(port)} sockets to port ${port} are still open`))
    }),
    Effect.asVoid
  )
