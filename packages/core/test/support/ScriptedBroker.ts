/**
 * A broker that follows a test's script: a TCP server on the loopback that speaks AMQP 0-9-1.
 *
 * Without a script it is a small correct broker. `on` and `once` replace its answer to one method. `hold` delays an
 * answer until `release`. It records what it received, counts open channels itself, and fails the test (at the end of
 * the scope) if a client violated the protocol or a handler threw.
 *
 * Commands are plain calls and take effect at once. Everything that waits is an Effect, woken by events and never by a
 * clock, so it works under a `TestClock` too.
 */
import type { Scope } from "effect"
import { Cause, Effect, FiberSet } from "effect"
import type { AddressInfo, Socket } from "node:net"
import { randomInt } from "node:crypto"
import { createServer } from "node:net"
import type { Answering } from "./brokerAnswers.ts"
import { answer, defaultServerProperties } from "./brokerAnswers.ts"
import type { AnyReceived, BrokerEvent, Host, Received, Tune } from "./BrokerConnection.ts"
import { BrokerConnection } from "./BrokerConnection.ts"
import { BrokerQueues } from "./BrokerQueues.ts"
import type { FieldTable } from "../../src/testing/internal/memory/codec/fieldTable.ts"
import type { Handler, Script } from "./BrokerScript.ts"
import { BrokerScript, closeArgs } from "./BrokerScript.ts"
import type { Args, Properties, ServerMethod } from "../../src/testing/internal/memory/codec/methods.ts"
import { reset, type Corruption } from "./SocketOutput.ts"
import * as Watch from "./ConditionWatcher.ts"

export type { AnyReceived, BrokerConnection, BrokerEvent, Received, Tune } from "./BrokerConnection.ts"
export type { Context, Handler, Script } from "./BrokerScript.ts"
export { refuseLogin, unknownVhost } from "./BrokerScript.ts"

export interface Options {
  readonly tune?: Partial<Tune>
  readonly serverProperties?: FieldTable
  /** The script that is in place from the start. */
  readonly on?: Script
  /** Whether the broker sends the negotiated heartbeats. Default: true. */
  readonly heartbeats?: boolean
  /** Writes pieces of this many bytes, each of which is read separately. */
  readonly chop?: number
  /** Cuts each connection (by RST unless this says `fin`) once the broker has written this many bytes. */
  readonly cutAfter?: number | { readonly bytes: number; readonly by: "rst" | "fin" }
  /** `record` is for tests about clients that violate the protocol. Default: `fail`. */
  readonly protocolErrors?: "fail" | "record"
}

export interface ScriptedBroker {
  readonly host: string
  readonly port: number
  readonly url: string

  readonly on: <E extends BrokerEvent>(method: E, handler: Handler<E>) => void
  /** For the next such method only, before what `on` says. Several are used in turn. */
  readonly once: <E extends BrokerEvent>(method: E, handler: Handler<E>) => void
  /** Restores the default answer. */
  readonly off: (method: BrokerEvent) => void
  /** Sends the held answers, all or the first `count`; returns their number. */
  readonly release: (method: BrokerEvent, count?: number) => number
  /** The number of held answers. */
  readonly held: (method: BrokerEvent) => number

  /** The number of open sockets. */
  readonly connections: number
  /** Channels open now: from `open-ok` until `close-ok`, the broker's own close, or the socket's end. */
  readonly openChannels: number
  /** The maximum that were open at the same time. */
  readonly maxOpenChannels: number
  /** Everything received, in order. */
  readonly log: ReadonlyArray<AnyReceived>
  readonly count: (method: BrokerEvent) => number
  /** The names of the received methods, in order, of one connection or channel or of all. */
  readonly methods: (of?: { readonly connection?: number; readonly channel?: number }) => ReadonlyArray<string>
  /** The clients' violations of the protocol. */
  readonly protocolErrors: ReadonlyArray<string>
  /** The connection that was accepted as the nth, from 1; the last one by default. */
  readonly connection: (nth?: number) => BrokerConnection
  /** The number of ready messages in a queue. */
  readonly ready: (queue: string) => number
  /** The number of deliveries that the client has not settled, on all open channels. */
  readonly unsettled: number

  /** Completes when the nth such method has been received and handled, with that method. */
  readonly received: <E extends BrokerEvent>(method: E, nth?: number) => Effect.Effect<Received<E>>
  /** Completes as soon as the condition holds. It is checked after each event. */
  readonly until: (condition: (broker: ScriptedBroker) => boolean) => Effect.Effect<void>
  /** Completes when no socket is open. */
  readonly socketsClosed: Effect.Effect<void>

  /** Sends a method on one channel of every open connection. */
  readonly send: <M extends ServerMethod>(channel: number, method: M, args?: Partial<Args<M>>) => void
  readonly block: (reason?: string) => void
  readonly unblock: () => void
  /** Sends `channel.flow` on every open channel. */
  readonly flow: (active: boolean) => void
  readonly closeChannels: (replyCode: number, replyText?: string) => void
  readonly closeConnections: (replyCode?: number, replyText?: string) => void
  /** Resets every socket. */
  readonly destroy: () => void
  /** Sends FIN on every socket. */
  readonly end: () => void
  readonly stopHeartbeats: () => void
  /** Stops reading from every socket, so that the clients' writes back up. */
  readonly pause: () => void
  readonly resume: () => void
  readonly enqueue: (queue: string, body: string | Uint8Array, properties?: Properties) => void

  /** Takes a socket that another server has accepted. `corruption` changes what is written to it. */
  readonly accept: (socket: Socket, corruption?: Corruption) => void

  /** Stops listening and resets every socket: connecting is refused. */
  readonly down: Effect.Effect<void>
  /** Listens again, on the same port. */
  readonly up: Effect.Effect<void>
}

const host = "127.0.0.1"

export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<ScriptedBroker, never, Scope.Scope> {
  const tune: Tune = { channelMax: 2047, frameMax: 131_072, heartbeat: 60, ...options.tune }
  const queues = new BrokerQueues()
  const answering: Answering = { queues, tune, serverProperties: options.serverProperties ?? defaultServerProperties }

  const script = new BrokerScript(options.on ?? {}, (received) => answer(received, answering))
  const watch = Watch.make()
  const log: Array<AnyReceived> = []
  const byMethod = new Map<string, Array<AnyReceived>>()
  const accepted: Array<BrokerConnection> = []
  const open = new Map<BrokerConnection, Socket>()
  const protocolErrors: Array<string> = []
  const scriptErrors: Array<string> = []
  let maxOpenChannels = 0
  let handling = 0
  let down = false

  const changed = () => {
    maxOpenChannels = Math.max(maxOpenChannels, broker.openChannels)
    // Never during a handler: a test that is woken here would see half of what the handler does.
    if (handling === 0) watch.changed()
  }
  const allOpen = (f: (connection: BrokerConnection) => void) => {
    for (const connection of open.keys()) f(connection)
  }
  const allOpenChannels = (f: (connection: BrokerConnection, channel: number) => void) =>
    allOpen((connection) => {
      for (const { number, state } of connection.channels.values()) if (state === "open") f(connection, number)
    })

  // Registered first, so it runs last: after the sockets and the handlers' fibers.
  yield* Effect.addFinalizer(() => {
    const wrong = accepted.flatMap(({ id, order }) => order.problems.map((problem) => `connection ${id}: ${problem}`))
    const broken = options.protocolErrors === "record" ? scriptErrors : [...protocolErrors, ...wrong, ...scriptErrors]
    return broken.length === 0 ? Effect.void : Effect.die(new Error(`scripted broker: ${broken.join("; ")}`))
  })
  const fork = yield* FiberSet.makeRuntime<never, void, never>()
  const scriptFailed = (method: string, error: unknown) => scriptErrors.push(`handler of ${method}: ${String(error)}`)
  const runLater = (method: string, later: Effect.Effect<void, unknown>) =>
    fork(
      Effect.catchCause(later, (cause) =>
        Effect.sync(() => {
          if (!Cause.hasInterruptsOnly(cause)) scriptFailed(method, Cause.squash(cause))
        })
      )
    )
  const dispatch = (received: AnyReceived) => {
    const { method } = received
    log.push(received)
    const same = byMethod.get(method) ?? []
    byMethod.set(method, same)
    const nth = same.push(received)
    handling++
    try {
      const later = script.handle(received, nth)
      if (later !== undefined) runLater(method, later)
    } catch (error) {
      scriptFailed(method, error)
    } finally {
      handling--
    }
    changed()
  }

  const cutAfter =
    typeof options.cutAfter === "number" ? ({ bytes: options.cutAfter, by: "rst" } as const) : options.cutAfter
  const connectionHost: Host = {
    tune,
    sendsHeartbeats: options.heartbeats ?? true,
    chop: options.chop ?? 0,
    cutAfter,
    dispatch,
    changed,
    released: (channel) => queues.abandon(channel),
    socketClosed: (connection) => {
      open.delete(connection)
      changed()
    },
    protocolError: (message) => protocolErrors.push(message)
  }
  const accept = (socket: Socket, corruption?: Corruption) => {
    if (down) return void reset(socket)
    const connection = new BrokerConnection(accepted.length + 1, socket, { ...connectionHost, corruption })
    accepted.push(connection)
    open.set(connection, socket)
    connection.start()
  }
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => accept(socket))
  const listen = (port: number) =>
    Effect.callback<void, Error>((resume) => {
      const failed = (error: Error) => resume(Effect.fail(error))
      server.once("error", failed)
      server.listen(port, host, () => {
        server.off("error", failed)
        resume(Effect.void)
      })
    })
  // Below the ports that systems assign (from 32768 on): no other connection takes it while this broker is down.
  const listenSomewhere = Effect.suspend(() => listen(randomInt(20_000, 32_000))).pipe(
    Effect.retry({ times: 20 }),
    Effect.orDie
  )
  const stop = Effect.callback<void>((resume) => {
    down = true
    server.close(() => resume(Effect.void))
    for (const socket of open.values()) reset(socket)
  })

  yield* Effect.acquireRelease(listenSomewhere, () =>
    Effect.when(
      stop,
      Effect.sync(() => server.listening)
    )
  )
  const { port } = server.address() as AddressInfo

  const broker: ScriptedBroker = {
    host,
    port,
    url: `amqp://guest:guest@${host}:${port}`,
    on: (method, handler) => script.on(method, handler),
    once: (method, handler) => script.once(method, handler),
    off: (method) => script.off(method),
    release: (method, count = Number.POSITIVE_INFINITY) => {
      const released = script.release(method, count)
      changed()
      return released
    },
    held: (method) => script.held(method),
    get connections() {
      return open.size
    },
    get openChannels() {
      return [...open.keys()].reduce((sum, connection) => sum + connection.openChannels, 0)
    },
    get unsettled() {
      return [...open.keys()].reduce((sum, connection) => sum + connection.unsettled, 0)
    },
    get maxOpenChannels() {
      return maxOpenChannels
    },
    log,
    count: (method) => byMethod.get(method)?.length ?? 0,
    methods: ({ channel, connection } = {}) =>
      log
        .filter((r) => connection === undefined || r.connection.id === connection)
        .filter((r) => channel === undefined || r.channel === channel)
        .map((r) => r.method),
    protocolErrors,
    connection: (nth = accepted.length) => {
      const connection = accepted[nth - 1]
      if (connection === undefined) throw new Error(`connection ${nth} was never accepted`)
      return connection
    },
    ready: (queue) => queues.count(queue).messageCount,
    received: <E extends BrokerEvent>(method: E, nth = 1) =>
      watch
        .until(() => broker.count(method) >= nth)
        .pipe(Effect.map(() => byMethod.get(method)?.[nth - 1] as unknown as Received<E>)),
    until: (condition) => watch.until(() => condition(broker)),
    socketsClosed: watch.until(() => open.size === 0),
    send: (channel, method, args) => allOpen((connection) => connection.send(channel, method, args)),
    block: (reason = "low on memory") => broker.send(0, "connection.blocked", { reason }),
    unblock: () => broker.send(0, "connection.unblocked"),
    flow: (active) => allOpenChannels((connection, channel) => connection.send(channel, "channel.flow", { active })),
    closeChannels: (code, text) =>
      allOpenChannels((connection, channel) => connection.send(channel, "channel.close", closeArgs(code, text))),
    closeConnections: (code = 320, text) =>
      allOpen((connection) => connection.send(0, "connection.close", closeArgs(code, text))),
    destroy: () => allOpen((connection) => connection.destroy()),
    end: () => allOpen((connection) => connection.end()),
    stopHeartbeats: () => allOpen((connection) => connection.stopHeartbeats()),
    pause: () => allOpen((connection) => connection.pause()),
    resume: () => allOpen((connection) => connection.resume()),
    enqueue: (queue, body, properties = {}) => {
      const bytes = typeof body === "string" ? Buffer.from(body) : body
      queues.enqueue(queue, { exchange: "", routingKey: queue, properties, body: bytes, redelivered: false })
    },
    accept,
    down: stop,
    up: Effect.suspend(() => {
      down = false
      return Effect.orDie(listen(port))
    })
  }

  return broker
})
