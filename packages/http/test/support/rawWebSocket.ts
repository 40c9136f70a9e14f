/** WebSocket clients that violate the protocol: the tests write the bytes of their frames. */
import { Deferred, Effect, type Scope } from "effect"
import type { HttpServer } from "effect/http"
import { connect, type Socket } from "node:net"
import { address, upgradeRequest } from "./server.ts"

const header = (first: number, length: number): Buffer => {
  if (length < 126) return Buffer.from([first, 0x80 | length])
  const long = Buffer.alloc(length < 65_536 ? 4 : 10)
  long[0] = first
  if (length < 65_536) {
    long[1] = 0x80 | 126
    long.writeUInt16BE(length, 2)
  } else {
    long[1] = 0x80 | 127
    long.writeBigUInt64BE(BigInt(length), 2)
  }
  return long
}

const noMask = Buffer.alloc(4)

/** A frame with a text or a part of one. `announced` is the length in its header. */
export const frame = (
  content: string | Uint8Array,
  { announced, first = 0x81 }: { readonly announced?: number; readonly first?: number } = {}
): Buffer => {
  const payload = Buffer.from(content)
  return Buffer.concat([header(first, announced ?? payload.length), noMask, payload])
}

/** The texts that a server has sent, and the code of its close. */
export interface Received {
  readonly texts: ReadonlyArray<string>
  readonly code: number | undefined
}

/** Reads the frames of a server, short and long ones, which are neither masked nor fragmented. */
export const readFrames = (bytes: Buffer): Received => {
  const texts: Array<string> = []
  let at = bytes.indexOf("\r\n\r\n") + 4
  while (at + 2 <= bytes.length) {
    const opcode = bytes[at]! & 0x0f
    const short = bytes[at + 1]!
    const start = at + (short === 127 ? 10 : short === 126 ? 4 : 2)
    if (start > bytes.length) break
    const length =
      short === 127 ? Number(bytes.readBigUInt64BE(at + 2)) : short === 126 ? bytes.readUInt16BE(at + 2) : short
    if (start + length > bytes.length) break
    if (opcode === 1) texts.push(bytes.toString("utf8", start, start + length))
    if (opcode === 8) return { texts, code: length < 2 ? 1005 : bytes.readUInt16BE(start) }
    at = start + length
  }
  return { texts, code: undefined }
}

export interface RawClient {
  readonly socket: Socket
  readonly received: () => Received
  /** Completes when the gateway has closed the connection, with everything that it has sent. */
  readonly ended: Effect.Effect<Received>
  /** Completes when the connection is gone. A client that keeps its half open detects this by writing. */
  readonly gone: Effect.Effect<void>
}

/** Opens a WebSocket. With `reads: false` the client reads the answer to the handshake, and nothing after it. */
export const openRaw = (
  path: string,
  { reads = true }: { readonly reads?: boolean } = {}
): Effect.Effect<RawClient, never, HttpServer.HttpServer | Scope.Scope> =>
  Effect.gen(function* () {
    const { hostname, port } = new URL(yield* address)
    const ended = yield* Deferred.make<Received>()
    const gone = yield* Deferred.make<void>()
    const opened = yield* Deferred.make<void>()
    let bytes = Buffer.alloc(0)
    const received = () => readFrames(bytes)
    const socket = connect({ port: Number(port), host: hostname, allowHalfOpen: true })
    yield* Effect.addFinalizer(() => Effect.sync(() => socket.destroy()))
    socket.on("data", (data) => {
      bytes = Buffer.concat([bytes, data])
      if (!bytes.includes("\r\n\r\n")) return
      if (!reads) socket.pause()
      Deferred.doneUnsafe(opened, Effect.void)
    })
    const end = () => Deferred.doneUnsafe(ended, Effect.sync(received))
    socket.on("end", end)
    socket.on("error", () => {})
    socket.on("close", () => {
      end()
      Deferred.doneUnsafe(opened, Effect.void)
      Deferred.doneUnsafe(gone, Effect.void)
    })
    socket.write(upgradeRequest(path))
    yield* Deferred.await(opened)
    const knock = Effect.forever(
      Effect.andThen(
        Effect.sync(() => socket.write(frame(""))),
        Effect.sleep("50 millis")
      )
    )
    return {
      socket,
      received,
      ended: Effect.timeout(Deferred.await(ended), "10 seconds").pipe(Effect.orDie),
      gone: Effect.raceFirst(Deferred.await(gone), knock).pipe(Effect.timeout("10 seconds"), Effect.orDie)
    }
  })
