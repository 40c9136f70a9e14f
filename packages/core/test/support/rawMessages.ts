/**
 * Messages whose properties are bytes, published to a real broker and read from it, as programs with another library
 * do: messages that this library would refuse to publish, or would encode differently.
 */
import { Effect } from "effect"
import { connect } from "node:net"
import {
  encodeFrame,
  encodeMessage,
  FRAME_BODY,
  FRAME_HEADER,
  FRAME_METHOD,
  FRAME_OVERHEAD,
  PROTOCOL_HEADER
} from "./frames.ts"
import { WireWriter } from "../../src/testing/internal/memory/codec/wire.ts"

const frameMax = 131_072

export interface RawMessage {
  readonly exchange?: string
  readonly routingKey: string | Uint8Array
  /** The part of a content header with the flags and what they announce. */
  readonly properties: Uint8Array
  readonly body?: Uint8Array
}

/** Properties: flags, and their values in order. */
export const rawProperties = (flags: number, ...values: ReadonlyArray<Uint8Array>): Buffer => {
  const word = Buffer.alloc(2)
  word.writeUInt16BE(flags)
  return Buffer.concat([word, ...values])
}

/** A short string of these bytes. */
export const shortBytes = (bytes: Uint8Array): Buffer => Buffer.concat([Buffer.of(bytes.length), bytes])

/** A table with these entries: each has a key, and a value with its tag. */
export const rawTable = (...entries: ReadonlyArray<readonly [key: string | Uint8Array, value: Uint8Array]>): Buffer => {
  const writer = new WireWriter()
  writer.longstr(Buffer.concat(entries.flatMap(([key, value]) => [shortBytes(Buffer.from(key as string)), value])))
  return writer.finish()
}

/** A value: its tag, and the bytes after it. */
export const rawValue = (tag: string, ...bytes: ReadonlyArray<Uint8Array>): Buffer =>
  Buffer.concat([Buffer.from(tag), ...bytes])

export const long = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

export const longlong = (value: bigint): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt.asUintN(64, value))
  return bytes
}

export const longText = (text: string | Uint8Array): Buffer => {
  const bytes = Buffer.from(text as string)
  return rawValue("S", long(bytes.length), bytes)
}

const method = (payload: Buffer) => payload.readUInt16BE(0) * 1000 + payload.readUInt16BE(2)

interface Session {
  readonly write: (...bytes: ReadonlyArray<Buffer>) => void
  readonly end: (outcome: Effect.Effect<Buffer>) => void
}

/** Opens channel 1 and runs a function on it. The channel is closed with `channel.close`. */
const session = (
  url: string,
  onOpen: (session: Session) => void,
  onHeader: (payload: Buffer, session: Session) => void = () => {}
): Effect.Effect<Buffer> =>
  Effect.callback<Buffer>((resume) => {
    const { hostname, pathname, port, username, password } = new URL(url)
    const socket = connect(Number(port), hostname)
    let rest: Buffer = Buffer.alloc(0)
    const it: Session = {
      write: (...bytes) => void socket.write(Buffer.concat(bytes)),
      end: (outcome) => {
        socket.destroy()
        resume(outcome)
      }
    }
    const failed = (why: string) => it.end(Effect.die(new Error(`raw client: ${why}`)))
    const answers: Record<number, () => void> = {
      10_010: () => {
        const response = `\0${decodeURIComponent(username)}\0${decodeURIComponent(password)}`
        it.write(encodeMessage(0, "connection.start-ok", { mechanism: "PLAIN", response, locale: "en_US" }))
      },
      10_030: () => {
        const virtualHost = pathname.length > 1 ? decodeURIComponent(pathname.slice(1)) : "/"
        it.write(
          encodeMessage(0, "connection.tune-ok", { channelMax: 16, frameMax }),
          encodeMessage(0, "connection.open", { virtualHost })
        )
      },
      10_041: () => it.write(encodeMessage(1, "channel.open")),
      20_011: () => onOpen(it),
      20_041: () => it.end(Effect.succeed(Buffer.alloc(0))),
      20_040: () => failed("the broker closed the channel"),
      10_050: () => failed("the broker closed the connection"),
      60_072: () => failed("the queue is empty")
    }
    socket.on("connect", () => socket.write(PROTOCOL_HEADER))
    socket.on("error", (error) => failed(error.message))
    socket.on("data", (bytes) => {
      rest = Buffer.concat([rest, bytes])
      while (rest.length >= 8 && rest.length >= 8 + rest.readUInt32BE(3)) {
        const end = 7 + rest.readUInt32BE(3)
        const payload = rest.subarray(7, end)
        if (rest[0] === FRAME_METHOD) answers[method(payload)]?.()
        else if (rest[0] === FRAME_HEADER) onHeader(payload, it)
        rest = rest.subarray(end + 1)
      }
    })
    return Effect.sync(() => socket.destroy())
  })

/** Completes when the broker has accepted all of them; dies if it refuses one. */
export const rawPublish = (url: string, ...messages: ReadonlyArray<RawMessage>): Effect.Effect<void> =>
  Effect.asVoid(
    session(url, ({ write }) => {
      for (const { body = Buffer.from("body"), exchange = "", properties, routingKey } of messages) {
        const head = Buffer.alloc(12)
        head.writeUInt16BE(60)
        head.writeBigUInt64BE(BigInt(body.length), 4)
        const key = Buffer.from(routingKey as string)
        const names = Buffer.concat([Buffer.of(0, 60, 0, 40, 0, 0), shortBytes(Buffer.from(exchange)), shortBytes(key)])
        write(encodeFrame(FRAME_METHOD, 1, Buffer.concat([names, Buffer.of(0)])))
        write(encodeFrame(FRAME_HEADER, 1, Buffer.concat([head, properties])))
        const step = frameMax - FRAME_OVERHEAD
        for (let at = 0; at < body.length; at += step) {
          write(encodeFrame(FRAME_BODY, 1, body.subarray(at, at + step)))
        }
      }
      // It is answered when all methods before it have been handled.
      write(encodeMessage(1, "channel.close"))
    })
  )

/** Takes the next message of a queue: the flags and values of its properties. */
export const rawPropertiesIn = (url: string, queue: string): Effect.Effect<Buffer> =>
  session(
    url,
    ({ write }) => write(encodeMessage(1, "basic.get", { queue, noAck: true })),
    (payload, { end }) => end(Effect.succeed(Buffer.from(payload.subarray(12))))
  )
