/** Plain amqplib, with its promises and events as effects: the client in tests of the test support. */
import type { Channel, ChannelModel, ConsumeMessage } from "amqplib"
import { connect } from "amqplib"
import { Effect } from "effect"
import type { Socket } from "node:net"
import { connect as connectSocket } from "node:net"
import { encodeMessage, PROTOCOL_HEADER } from "./frames.ts"
import type { ScriptedBroker } from "./ScriptedBroker.ts"
import * as Watch from "./ConditionWatcher.ts"

export const call = <A>(f: () => PromiseLike<A>): Effect.Effect<A, Error> =>
  Effect.tryPromise({ try: f, catch: (error) => error as Error })

/** The error with which a call must fail. */
export const refusal = <A>(f: () => PromiseLike<A>): Effect.Effect<Error, A> => Effect.flip(call(f))

/** A connection that is closed with the scope. Its close is bounded, because amqplib's own may never settle. */
export const connected = (url: string) =>
  Effect.acquireRelease(
    call(() => connect(url, { noDelay: true, timeout: 10_000 })),
    (connection) => call(() => connection.close()).pipe(Effect.ignore, Effect.timeoutOption("200 millis"))
  ).pipe(Effect.tap((connection) => Effect.sync(() => connection.on("error", () => {}))))

export const openChannel = (connection: ChannelModel) =>
  call(() => connection.createChannel()).pipe(Effect.tap((channel) => Effect.sync(() => channel.on("error", () => {}))))

/** Listens at once. The effect completes with the event. */
export const nextEvent = (
  emitter: Pick<ChannelModel, "once"> | Pick<Channel, "once">,
  event: string
): Effect.Effect<unknown> => {
  const arrived = new Promise<unknown>((resolve) => emitter.once(event, resolve))
  return Effect.promise(() => arrived)
}

export const get = (channel: Channel, queue: string) =>
  call(() => channel.get(queue)).pipe(Effect.map((message) => message || undefined))

export const consuming = Effect.fnUntraced(function* (channel: Channel, queue: string) {
  const deliveries: Array<ConsumeMessage | null> = []
  const { consumerTag } = yield* call(() => channel.consume(queue, (message) => void deliveries.push(message)))
  return { consumerTag, deliveries }
})

export interface RawClient {
  readonly write: (...parts: Array<Buffer>) => void
  /** All bytes received so far. */
  readonly seen: () => Buffer
  /** The number of pieces in which they arrived. */
  readonly reads: () => number
  /** Completes when this many bytes have arrived. */
  readonly received: (bytes: number) => Effect.Effect<void>
  /** Completes when the socket has closed. Everything that arrived before is in `seen` by then. */
  readonly closed: Effect.Effect<void>
}

/** A socket that sends what the test gives it, and nothing else. */
export const rawClient = (broker: ScriptedBroker) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly client: RawClient; readonly socket: Socket }>((resume) => {
      const watch = Watch.make()
      let chunks: ReadonlyArray<Buffer> = []
      let open = true
      const client: RawClient = {
        write: (...parts) => void socket.write(Buffer.concat(parts)),
        seen: () => Buffer.concat(chunks),
        reads: () => chunks.length,
        received: (bytes) => watch.until(() => client.seen().length >= bytes),
        closed: watch.until(() => !open)
      }
      const socket = connectSocket(broker.port, broker.host, () => resume(Effect.succeed({ client, socket })))
      socket.on("data", (bytes) => {
        chunks = [...chunks, bytes]
        watch.changed()
      })
      socket.on("close", () => {
        open = false
        watch.changed()
      })
      socket.on("error", () => {})
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  ).pipe(Effect.map(({ client }) => client))

/** What a client sends until its connection is open, all at once. */
export const clientHandshake: Buffer = Buffer.concat([
  PROTOCOL_HEADER,
  encodeMessage(0, "connection.start-ok", { mechanism: "PLAIN", response: "\0guest\0guest", locale: "en_US" }),
  encodeMessage(0, "connection.tune-ok", { channelMax: 16, frameMax: 131_072 }),
  encodeMessage(0, "connection.open", { virtualHost: "/" })
])
