/** A gateway under test, and its clients over real sockets. */
import { Amqp, AmqpConfig, type AmqpError } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { AmqpGateway } from "@effect-amqp/http"
import { Deferred, Effect, Layer, type Scope } from "effect"
import { HttpRouter, type HttpServer } from "effect/http"
import { address, gracefulServer, quiet } from "./server.ts"

export const limits: AmqpGateway.Limits = { body: "64 KiB", prefetch: 10, idleTimeout: "20 seconds", streams: 8 }

/** Allows everything to requests with the token. */
export const authorize: AmqpGateway.Options["authorize"] = ({ headers }) =>
  Effect.succeed(headers["authorization"] === "Bearer open" ? "allow" : "authenticate")

export const serveGateway = (
  options: Partial<AmqpGateway.Options> = {}
): Layer.Layer<Amqp.Amqp | HttpServer.HttpServer, AmqpError.AmqpError, TestBroker.TestBroker> =>
  HttpRouter.serve(AmqpGateway.layer({ authorize, ...options, limits: { ...limits, ...options.limits } }), quiet).pipe(
    Layer.provideMerge(gracefulServer()),
    Layer.provideMerge(
      Layer.unwrap(
        Effect.flatMap(TestBroker.TestBroker, ({ url }) =>
          Effect.map(AmqpConfig.fromUrl(url, { pool: { max: 4 } }), Amqp.fromConfig)
        )
      )
    )
  )

/** Runs a test against a gateway of its own. */
export const withGateway =
  (options?: Partial<AmqpGateway.Options>) =>
  <A, E, R>(
    test: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | AmqpError.AmqpError, Exclude<R, Amqp.Amqp | HttpServer.HttpServer> | TestBroker.TestBroker> =>
    Effect.provide(test, serveGateway(options), { local: true })

export const known = { authorization: "Bearer open" }

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  readonly json: unknown
}

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Sends a request with the token, unless the headers contain other credentials. */
export const ask = (
  method: string,
  path: string,
  init: RequestInit = {}
): Effect.Effect<Answer, never, HttpServer.HttpServer> =>
  Effect.flatMap(address, (url) =>
    Effect.promise(async (signal) => {
      const response = await fetch(url + path, { method, headers: known, ...init, signal })
      const text = await response.text()
      return { status: response.status, headers: response.headers, text, json: parse(text) }
    })
  )

export const post = (path: string, body: NonNullable<RequestInit["body"]>, headers: Record<string, string> = {}) =>
  ask("POST", path, { body, headers: { ...known, ...headers } })

// --- Server-sent events ---

export interface ServerSentEvent {
  readonly event: string
  readonly id: string
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly data: any
}

export interface Events {
  /** The next event except heartbeats; `undefined` at the end of the stream. */
  readonly next: Effect.Effect<ServerSentEvent | undefined>
  /** The next event of this name. */
  readonly until: (event: string) => Effect.Effect<ServerSentEvent>
  /** Number of heartbeats so far. */
  readonly heartbeats: () => number
  readonly hangUp: Effect.Effect<void>
}

const parsedEvent = (block: string): ServerSentEvent | undefined => {
  const fields = new Map(block.split("\n").map((line) => [line.split(": ", 1)[0]!, line.slice(line.indexOf(": ") + 2)]))
  const data = fields.get("data")
  return data === undefined
    ? undefined
    : { event: fields.get("event") ?? "message", id: fields.get("id") ?? "", data: JSON.parse(data) }
}

/** Opens a stream, which is closed with the scope at the latest. */
export const listen = (
  path: string,
  headers: Record<string, string> = {}
): Effect.Effect<Events, Error, HttpServer.HttpServer | Scope.Scope> =>
  eventsOf("GET", path, { headers: { ...known, ...headers } })

/** The same for any request. */
export const eventsOf = (
  method: string,
  path: string,
  init: RequestInit
): Effect.Effect<Events, Error, HttpServer.HttpServer | Scope.Scope> =>
  Effect.gen(function* () {
    const url = yield* address
    const leaving = new AbortController()
    yield* Effect.addFinalizer(() => Effect.sync(() => leaving.abort()))
    const response = yield* Effect.promise(() => fetch(url + path, { method, ...init, signal: leaving.signal }))
    if (response.status !== 200) {
      return yield* Effect.fail(new Error(`${response.status} ${yield* Effect.promise(() => response.text())}`))
    }
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
    let text = ""
    let heartbeats = 0
    const next: Effect.Effect<ServerSentEvent | undefined> = Effect.promise(async () => {
      for (;;) {
        const end = text.indexOf("\n\n")
        if (end >= 0) {
          const block = text.slice(0, end)
          text = text.slice(end + 2)
          if (block.startsWith(":")) heartbeats++
          const event = parsedEvent(block)
          if (event !== undefined) return event
          continue
        }
        const { done, value } = await reader.read().catch(() => ({ done: true, value: undefined }) as const)
        if (done) return undefined
        text += value
      }
    })
    const until = (name: string): Effect.Effect<ServerSentEvent> =>
      Effect.flatMap(next, (event) =>
        event === undefined
          ? Effect.die(new Error(`the stream ended without ${name}`))
          : event.event === name
            ? Effect.succeed(event)
            : until(name)
      )
    return { next, until, heartbeats: () => heartbeats, hangUp: Effect.sync(() => leaving.abort()) }
  })

// --- WebSockets ---

export interface Conversation {
  readonly send: (value: unknown) => Effect.Effect<void>
  /** The next frame of this event. */
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly until: (event: string) => Effect.Effect<any>
  readonly close: Effect.Effect<void>
  /** The code of the close. */
  readonly closed: Effect.Effect<number>
}

/** Opens a WebSocket without credentials, because Node's client cannot send custom headers. */
export const converse = (path: string): Effect.Effect<Conversation, never, HttpServer.HttpServer | Scope.Scope> =>
  Effect.gen(function* () {
    const url = yield* address
    const socket = new WebSocket(url.replace("http", "ws") + path)
    const closed = yield* Deferred.make<number>()
    const frames: Array<{ readonly event: string }> = []
    let look = () => {}
    socket.addEventListener("message", ({ data }) => {
      frames.push(JSON.parse(String(data)))
      look()
    })
    socket.addEventListener("close", ({ code }) => {
      Deferred.doneUnsafe(closed, Effect.succeed(code))
    })
    yield* Effect.addFinalizer(() => Effect.sync(() => socket.close()))
    return {
      send: (value) => Effect.sync(() => socket.send(typeof value === "string" ? value : JSON.stringify(value))),
      until: (event) =>
        Effect.callback((resume) => {
          look = () => {
            const index = frames.findIndex((frame) => frame.event === event)
            if (index >= 0) resume(Effect.succeed(frames.splice(0, index + 1).at(-1)))
          }
          look()
        }),
      close: Effect.sync(() => socket.close(1000)),
      closed: Deferred.await(closed)
    }
  })
