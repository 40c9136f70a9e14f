import * as Effect from "effect/Effect"
import * as FileSystem from "node:fs"
import * as Net from "node:net"
import { TestBrokerError } from "../TestBrokerError.ts"

// Below the ephemeral range, so that no client socket gets the port between the check and the broker's bind.
const lowest = 15_000
const highest = () => {
  try {
    const first = Number.parseInt(FileSystem.readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8"), 10)
    return first > lowest + 2_000 ? first - 1 : 32_700
  } catch {
    return 32_700
  }
}

const isFree = (port: number) =>
  Effect.callback<boolean>((resume) => {
    const server = Net.createServer()
    server.once("error", () => resume(Effect.succeed(false)))
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => server.close(() => resume(Effect.succeed(true))))
  })

/** Distinct free TCP ports on 127.0.0.1, drawn at random so that concurrent runs rarely collide. */
export const free = Effect.fnUntraced(function* (count: number) {
  const limit = highest()
  const found = new Set<number>()
  for (let attempts = 0; found.size < count; attempts++) {
    if (attempts === 400) {
      return yield* new TestBrokerError({ reason: "StartFailed", message: "No free TCP ports on 127.0.0.1" })
    }
    const port = lowest + Math.floor(Math.random() * (limit - lowest))
    if (!found.has(port) && (yield* isFree(port))) {
      found.add(port)
    }
  }
  return [...found]
})
