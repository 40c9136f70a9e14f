/**
 * A TCP proxy on the loopback that misbehaves on command: it stands between a client and a broker and does to their
 * bytes what networks do.
 *
 * `up` is towards the broker, `down` towards the client. Commands are plain calls. They take effect at once, on open
 * links and on new ones, and last until `heal`. Everything that waits is an Effect, woken by events.
 */
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, type Scope } from "effect"
import type { AddressInfo, Socket } from "node:net"
import { connect, createServer } from "node:net"
import type { CutBy, Direction, Passed } from "./ProxiedDirection.ts"
import { ProxiedDirection, noFaults } from "./ProxiedDirection.ts"
import * as Watch from "./ConditionWatcher.ts"

export interface Stats {
  /** The number of connections accepted so far, including refused ones. */
  readonly accepted: number
  /** The number of links open now. */
  readonly open: number
  /** The number of links that the proxy has reset. */
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

  /** No byte, end or reset passes: the sender's TCP window fills. Nothing is lost. */
  readonly stall: (direction?: Direction | "both") => void
  /** Swallows bytes. The sender does not notice. */
  readonly drop: (direction?: Direction | "both") => void
  readonly delay: (milliseconds: number, direction?: Direction | "both") => void
  /** At most this many bytes per second. */
  readonly rate: (bytesPerSecond: number, direction?: Direction | "both") => void
  /** Writes pieces of this many bytes, each of which is read separately. */
  readonly chop: (bytes: number, direction?: Direction | "both") => void
  /** Flips one bit in every nth byte. */
  readonly corrupt: (everyNth: number, direction?: Direction | "both") => void
  /**
   * Cuts the link, for both sides, on which the last of this many further bytes in this direction (of all links)
   * passed.
   */
  readonly cutAfter: (bytes: number, direction?: Direction, by?: CutBy) => void
  /** Resets every new connection as soon as it is accepted. */
  readonly refuse: (on?: boolean) => void
  /** Resets every open link, on both sides. */
  readonly rst: () => void
  /** Closes one half of every open link: by default FIN to the client, with `up` to the broker. */
  readonly fin: (direction?: Direction) => void
  /** Ends all faults; stalled bytes continue. */
  readonly heal: () => void

  /** Completes when the nth connection has been accepted. */
  readonly accepted: (nth?: number) => Effect.Effect<void>
  /** Completes as soon as the condition holds. It is checked whenever bytes pass or a link opens or closes. */
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

/** A proxy in front of a port of 127.0.0.1, of a URL's broker, or of the given address. */
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
