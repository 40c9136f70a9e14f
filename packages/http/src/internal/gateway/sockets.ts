/**
 * The connection below a stream of events.
 *
 * Effect's server does not report when the bytes of a stream have left the process: a response takes what fits into
 * Node's buffer, and `write` of a WebSocket returns before anything is sent. It exposes Node's request as `source`, and
 * with it the socket. Only this file uses the socket, and only through Node's documented API.
 *
 * Bytes that have left the process are in the kernel, on this machine or on the client's. They can be some megabytes
 * that the client has not read, and this side cannot detect that.
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

/** How long a client has to read the last bytes and to close its side, in milliseconds. */
const grace = 1000

const isWritable = (value: unknown): value is Writable =>
  typeof value === "object" && value !== null && "writableLength" in value && "write" in value

/** The output of a response: the stream of HTTP/2, or the socket. `undefined` if this server does not run on Node's. */
export const outputOf = ({ source }: HttpServerRequest.HttpServerRequest): Writable | undefined => {
  // The stream is preferred, because the socket of HTTP/2 throws on a write.
  const { socket, stream } = source as { readonly socket?: unknown; readonly stream?: unknown }
  return isWritable(stream) ? stream : isWritable(socket) ? socket : undefined
}

const nothing = new Uint8Array(0)

/**
 * Waits until everything that was written has left the process. Succeeds with `false` if the output was closed first.
 */
export const awaitFlushed = (output: Writable): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    if (output.destroyed || output.writableEnded) return Effect.succeed(false)
    if (output.writableLength === 0) return Effect.succeed(true)
    return Effect.callback((resume) => {
      // Node writes in order, so an empty chunk is done when everything before it is. The event `drain` is not emitted
      // for small writes.
      output.write(nothing, (error) => resume(Effect.succeed(!error)))
    })
  })

/**
 * How many bytes are read and discarded after a close, at most. Unread bytes would reset the connection, and the client
 * would lose the last bytes that were written to it.
 */
const mostDiscarded = 262_144

/** Discards further input, up to a bound. No other listener reads the socket after this. */
const discardInput = (socket: NetSocket): void => {
  let left = mostDiscarded
  socket.removeAllListeners("data")
  socket.on("data", (chunk: Uint8Array) => {
    left -= chunk.length
    if (left < 0) socket.pause()
  })
  socket.resume()
}

/** Ends a connection after everything that was written has left, at the latest after one second. */
export const closeGracefully = (socket: NetSocket): void => {
  if (socket.destroyed) return
  discardInput(socket)
  socket.end()
  const timer = setTimeout(() => socket.destroy(), grace)
  socket.once("close", () => clearTimeout(timer))
}

/** Whether Node treats this request as an upgrade, and has handed its connection over. */
export const isUpgrade = ({ headers }: HttpServerRequest.HttpServerRequest): boolean =>
  headers["upgrade"] !== undefined && /(?:^|[\s,])upgrade(?:[\s,]|$)/i.test(headers["connection"] ?? "")

/** Whether this request asks for a WebSocket. */
export const isWebSocket = ({ headers }: HttpServerRequest.HttpServerRequest): boolean =>
  headers["upgrade"]?.toLowerCase() === "websocket"

/** The socket of a request whose connection Node has handed over. */
export const socketOf = ({ source }: HttpServerRequest.HttpServerRequest): NetSocket | undefined => {
  const { socket } = source as { readonly socket?: NetSocket }
  return isWritable(socket) && "bytesWritten" in socket ? socket : undefined
}

/** A WebSocket that reports when a message has left the process, and that limits the client's messages. */
export interface WebSocket {
  /** Takes the messages that have arrived. */
  readonly pull: Effect.Effect<ReadonlyArray<string>, Socket.SocketError>
  /** Sends a message, and waits until it has left the process. Fails if the socket is closed. */
  readonly send: (text: string) => Effect.Effect<void, Socket.SocketError>
  /** Sends a last message and closes the WebSocket. It does not wait, because the end of the scope waits. */
  readonly close: (code: number, reason: string, last?: string) => Effect.Effect<void, Socket.SocketError>
  /** Completes when the client exceeds a limit. No more input is read then. */
  readonly exceeded: Effect.Effect<Excess>
}

const gone: Effect.Effect<never, Socket.SocketError> = Effect.fail(
  new Socket.SocketError({ reason: new Socket.SocketCloseError({ code: 1006 }) })
)

/**
 * Upgrades a request's connection to a WebSocket, which ends with the scope. `ws` keeps a socket for 30 seconds if the
 * client does not answer the close; here it is freed within one second.
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
    // Compression is disabled: a compressed message is buffered outside of the socket before it is written, and a short
    // message from a client can become long when it is decompressed.
    delete (request.source as { readonly headers: Record<string, unknown> }).headers["sec-websocket-extensions"]
    const exceeded = yield* Deferred.make<Excess>()
    const headers = new FrameHeaders()
    // The socket is paused so that this listener exists before the first byte arrives. `ws` would let it flow.
    socket.pause()
    socket.on("data", (chunk: Uint8Array) => {
      const excess = headers.read(chunk)
      if (excess === undefined) return
      discardInput(socket)
      Deferred.doneUnsafe(exceeded, Effect.succeed(excess))
    })
    // The finalizer is added before the reader, so it runs after `ws` has written its close.
    yield* Effect.addFinalizer(() => Effect.sync(() => closeGracefully(socket)))
    const pull = yield* Socket.readerString(webSocket)
    socket.resume()
    const { write } = yield* webSocket.writer
    return {
      pull,
      send: (text) =>
        Effect.suspend(() => {
          const before = socket.bytesWritten
          return Effect.flatMap(write(text), () =>
            // A WebSocket that is closing accepts messages without sending them, so the count of bytes is compared.
            socket.bytesWritten - before < text.length
              ? gone
              : Effect.flatMap(awaitFlushed(socket), (left) => (left ? Effect.void : gone))
          )
        }),
      close: (code, reason, last) =>
        Effect.andThen(last === undefined ? Effect.void : write(last), write(new Socket.CloseEvent(code, reason))),
      exceeded: Deferred.await(exceeded)
    }
  })
