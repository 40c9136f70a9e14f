/**
 * A TCP proxy on the loopback that misbehaves when told to: it stands between a client and a broker and does to their
 * bytes what networks do.
 *
 * `up` is towards the broker, `down` towards the client. Commands are plain calls, take effect at once, on open links
 * and on new ones, and stay until `heal`; whatever waits is an Effect, woken by events.
 */
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, type Scope } from "effect"
import type { AddressInfo, Socket } from "node:net"
import { connect, createServer } from "node:net"
import type { CutBy, Direction, Passed } from "./ProxiedDirection.ts"
import { ProxiedDirection, noFaults } from "./ProxiedDirection.ts"
import * as Watch from "./Watch.ts"

export interface Stats {
  /** Connections accepted ever, those refused included. */
  readonly accepted: number
  /** Links open now. */
  readonly open: number
  /** Links reset by the proxy. */
  readonly reset: number
  readonly refused: number
  readonly up: Readonly<Passed>
  readonly down: Readonly<Passed>
}

export interface FaultProxy {
  readonly host: string
  readonly port: number
  /** An upstream's URL with the proxy's address in place of its own. */
  readonly through: (url: string) => string
  readonly stats: Stats

  /** No byte passes, no end, no reset: the sender's TCP window fills. A black hole that forgets nothing. */
  readonly stall: (direction?: Direction | "both") => void
  /** Swallows bytes; the sender thinks all is well. */
  readonly drop: (direction?: Direction | "both") => void
  readonly delay: (milliseconds: number, direction?: Direction | "both") => void
  /** At most so many bytes a second. */
  readonly rate: (bytesPerSecond: number, direction?: Direction | "both") => void
  /** Writes pieces of so many bytes, each read by itself. */
  readonly chop: (bytes: number, direction?: Direction | "both") => void
  /** Flips one bit in every nth byte. */
  readonly corrupt: (everyNth: number, direction?: Direction | "both") => void
  /** Cuts the link, for both sides, on which, after so many more bytes that way (of all links), the last of them passed. */
  readonly cutAfter: (bytes: number, direction?: Direction, by?: CutBy) => void
  /** Resets every new connection as soon as it is accepted. */
  readonly refuse: (on?: boolean) => void
  /** Resets every open link, on both sides. */
  readonly rst: () => void
  /** Closes one half of every open link: FIN to the client, unless told `up`. */
  readonly fin: (direction?: Direction) => void
  /** Ends all faults; what was stalled flows again. */
  readonly heal: () => void

  /** Completes when the nth connection has been accepted. */
  readonly accepted: (nth?: number) => Effect.Effect<void>
  /** Completes as soon as the condition holds; looked at whenever bytes pass or a link opens or closes. */
  readonly until: (condition: (stats: Stats) => boolean) => Effect.Effect<void>
  /** Completes when no link is open. */
  readonly linksClosed: Effect.Effect<void>
}

interface Link {
  readonly sockets: Readonly<Record<Direction, Socket>>
  readonly directions: ReadonlyArray<ProxiedDirection>
}

const host = "127.0.0.1"

type Upstream = number | string | { readonly host: string; readonly port: number }

const targetOf = (upstream: Upstream) => {
  if (typeof upstream === "number") return { host, port: upstream }
  if (typeof upstream !== "string") return upstream
  const { hostname, port } = new URL(upstream)
  return { host: hostname, port: Number(port) }
}

/** In front of a port of 127.0.0.1, of the broker of a URL, or of wherever it is told. */
export const make = Effect.fnUntraced(function* (upstream: Upstream): Effect.fn.Return<FaultProxy, never, Scope.Scope> {
  const target = targetOf(upstream)
  const faults = { up: noFaults(), down: noFaults() }
  const passed = {
    up: { bytes: 0, held: 0, dropped: 0, corrupted: 0 },
    down: { bytes: 0, held: 0, dropped: 0, corrupted: 0 }
  }
  const links = new Set<Link>()
  let acceptedCount = 0
  let resetCount = 0
  let refusedCount = 0
  let refusing = false

  const stats: Stats = {
    get accepted() {
      return acceptedCount
    },
    get open() {
      return links.size
    },
    get reset() {
      return resetCount
    },
    get refused() {
      return refusedCount
    },
    ...passed
  }
  const { changed, until } = Watch.make()
  const reset = (link: Link) => {
    if (!links.delete(link)) return
    resetCount++
    for (const direction of link.directions) direction.stop()
    link.sockets.up.resetAndDestroy()
    link.sockets.down.resetAndDestroy()
    changed()
  }

  const cut = (link: Link, by: CutBy) => {
    if (by === "rst") return reset(link)
    for (const direction of link.directions) direction.stop()
    link.sockets.up.end()
    link.sockets.down.end()
  }

  const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (client) => {
    acceptedCount++
    client.on("error", () => {}) // `close` follows
    if (refusing) {
      refusedCount++
      client.resetAndDestroy()
      return changed()
    }
    const broker = connect({ ...target, allowHalfOpen: true, noDelay: true })
    broker.on("error", () => {})
    const on = { reset: () => reset(link), cut: (by: CutBy) => cut(link, by), changed }
    const link: Link = {
      sockets: { up: broker, down: client },
      directions: [
        new ProxiedDirection(client, broker, faults.up, passed.up, on),
        new ProxiedDirection(broker, client, faults.down, passed.down, on)
      ]
    }
    links.add(link)
    const closed = () => {
      if (!client.destroyed || !broker.destroyed) return
      if (links.delete(link)) changed()
    }
    client.on("close", closed)
    broker.on("close", closed)
    changed()
  })

  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      server.once("error", (error) => resume(Effect.die(error)))
      server.listen(0, host, () => resume(Effect.void))
    }),
    () =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        for (const link of links) reset(link)
      })
  )
  const { port } = server.address() as AddressInfo

  const set = (direction: Direction | "both", fault: Partial<ReturnType<typeof noFaults>>) => {
    if (direction !== "down") Object.assign(faults.up, fault)
    if (direction !== "up") Object.assign(faults.down, fault)
    for (const link of links) for (const direction of link.directions) direction.kick()
  }
  return {
    host,
    port,
    through: (url) => {
      const moved = new URL(url)
      moved.hostname = host
      moved.port = String(port)
      return moved.toString()
    },
    stats,
    stall: (direction = "both") => set(direction, { stalled: true }),
    drop: (direction = "both") => set(direction, { dropping: true }),
    delay: (delayMs, direction = "both") => set(direction, { delayMs }),
    rate: (rate, direction = "both") => set(direction, { rate }),
    chop: (chop, direction = "both") => set(direction, { chop }),
    corrupt: (corruptEvery, direction = "down") => set(direction, { corruptEvery }),
    cutAfter: (cutAfter, direction = "up", cutBy = "rst") => set(direction, { cutAfter, cutBy }),
    refuse: (on = true) => {
      refusing = on
    },
    rst: () => links.forEach(reset),
    fin: (direction = "down") => links.forEach((link) => link.sockets[direction].end()),
    heal: () => {
      refusing = false
      set("both", noFaults())
    },
    accepted: (nth = 1) => until(() => acceptedCount >= nth),
    until: (condition) => until(() => condition(stats)),
    linksClosed: until(() => links.size === 0)
  }
})

/** A proxy in front of the broker of the test. */
export const proxied = Effect.gen(function* () {
  const broker = yield* TestBroker.TestBroker
  const proxy = yield* make(broker.url)
  return { broker, proxy, url: proxy.through(broker.url) }
})
