/**
 * The connection below a stream of events.
 *
 * Effect's server says of neither kind of stream when its bytes have left: a response takes what fits into Node's buffer, and
 * `write` of a WebSocket returns before anything was sent. It gives Node's request as `source`, though, and so the socket.
 * This file is the only one that looks at it, by Node's documented API alone.
 *
 * Bytes that have left are in the kernel, here or at the client: some megabytes that nobody may have read. Nothing on this
 * side can tell.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { HttpServerError } from "effect/http/HttpServerError"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import type * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import type { Socket as NetSocket } from "node:net"
import type { Writable } from "node:stream"
import { type Excess, FrameHeaders } from "./frames.ts"

/** How long a client has to read the last that was written, and to close its side. */
const grace = 1000

const isWritable = (value: unknown): value is Writable =>
  typeof value === "object" && value !== null && "writableLength" in value && "write" in value

/** What a response is written to: the stream of HTTP/2, or the socket. `undefined`: this server does not run on Node's. */
export const outputOf = ({ source }: HttpServerRequest.HttpServerRequest): Writable | undefined => {
  // The socket of HTTP/2 throws when it is written to.
  const { socket, stream } = source as { readonly socket?: unknown; readonly stream?: unknown }
  return isWritable(stream) ? stream : isWritable(socket) ? socket : undefined
}

const nothing = new Uint8Array(0)

/** Waits until all that was written has left, and says whether it has. */
export const hasLeft = (output: Writable): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    if (output.destroyed || output.writableEnded) return Effect.succeed(false)
    if (output.writableLength === 0) return Effect.succeed(true)
    return Effect.callback((resume) => {
      // Node writes in order: an empty chunk is done when all before it is. `drain` may not come for what is small.
      output.write(nothing, (error) => resume(Effect.succeed(!error)))
    })
  })

/** How much is read of a client that is closed: unread bytes would reset the connection, and what it was told be lost. */
const mostDiscarded = 262_144

/** What still comes is thrown away, up to a bound. Nobody else reads on. */
const discardInput = (socket: NetSocket): void => {
  let left = mostDiscarded
  socket.removeAllListeners("data")
  socket.on("data", (chunk: Uint8Array) => {
    left -= chunk.length
    if (left < 0) socket.pause()
  })
  socket.resume()
}

/** Ends a connection when what was written has left, or a second later at the latest. */
export const letGo = (socket: NetSocket): void => {
  if (socket.destroyed) return
  discardInput(socket)
  socket.end()
  const timer = setTimeout(() => socket.destroy(), grace)
  socket.once("close", () => clearTimeout(timer))
}

/** Whether this request has taken its connection out of HTTP, as far as Node is concerned. */
export const isUpgrade = ({ headers }: HttpServerRequest.HttpServerRequest): boolean =>
  headers["upgrade"] !== undefined && /(?:^|[\s,])upgrade(?:[\s,]|$)/i.test(headers["connection"] ?? "")

/** Whether this request asks for a WebSocket. */
export const isWebSocket = ({ headers }: HttpServerRequest.HttpServerRequest): boolean =>
  headers["upgrade"]?.toLowerCase() === "websocket"

/** The socket of a request that Node has handed over. */
export const socketOf = ({ source }: HttpServerRequest.HttpServerRequest): NetSocket | undefined => {
  const { socket } = source as { readonly socket?: NetSocket }
  return isWritable(socket) && "bytesWritten" in socket ? socket : undefined
}

/** A WebSocket that knows what has left, and how much it takes. */
export interface WebSocket {
  /** Messages, as they come. */
  readonly pull: Effect.Effect<ReadonlyArray<string>, Socket.SocketError>
  /** Sends a message, and waits until it has left. Fails when it cannot. */
  readonly send: (text: string) => Effect.Effect<void, Socket.SocketError>
  /** Sends a last message, and closes: without waiting, since the scope's end does that. */
  readonly close: (code: number, reason: string, last?: string) => Effect.Effect<void, Socket.SocketError>
  /** Completes when the client sends more than is taken. Nothing more is read then. */
  readonly exceeded: Effect.Effect<Excess>
}

const gone: Effect.Effect<never, Socket.SocketError> = Effect.fail(
  new Socket.SocketError({ reason: new Socket.SocketCloseError({ code: 1006 }) })
)

/**
 * Makes a request's connection a WebSocket. It ends with the scope: what `ws` keeps for 30 seconds for a client that does not
 * answer its close is freed within one.
 */
export const upgrade = (
  request: HttpServerRequest.HttpServerRequest
): Effect.Effect<WebSocket, HttpServerError | Socket.SocketError, Scope.Scope> =>
  Effect.gen(function* () {
    const webSocket = yield* request.upgrade
    const socket = socketOf(request)
    if (socket === undefined) {
      return yield* Effect.die(
        new Error(
          "AmqpGateway: expected the socket of Node's request as `source.socket`, got none. " +
            "WebSockets of the gateway need NodeHttpServer of @effect/platform-node."
        )
      )
    }
    // Compressed messages lie elsewhere before they are written, and short ones become long when they are read.
    delete (request.source as { readonly headers: Record<string, unknown> }).headers["sec-websocket-extensions"]
    const exceeded = yield* Deferred.make<Excess>()
    const headers = new FrameHeaders()
    // Paused, so that this listener is there before the first byte: `ws` lets it flow.
    socket.pause()
    socket.on("data", (chunk: Uint8Array) => {
      const excess = headers.read(chunk)
      if (excess === undefined) return
      discardInput(socket)
      Deferred.doneUnsafe(exceeded, Effect.succeed(excess))
    })
    // Before the reader, so that it runs when `ws` has written its close.
    yield* Effect.addFinalizer(() => Effect.sync(() => letGo(socket)))
    const pull = yield* Socket.readerString(webSocket)
    socket.resume()
    const { write } = yield* webSocket.writer
    return {
      pull,
      send: (text) =>
        Effect.suspend(() => {
          const before = socket.bytesWritten
          return Effect.flatMap(write(text), () =>
            // A WebSocket that is closing takes messages without sending them.
            socket.bytesWritten - before < text.length
              ? gone
              : Effect.flatMap(hasLeft(socket), (left) => (left ? Effect.void : gone))
          )
        }),
      close: (code, reason, last) =>
        Effect.andThen(last === undefined ? Effect.void : write(last), write(new Socket.CloseEvent(code, reason))),
      exceeded: Deferred.await(exceeded)
    }
  })
