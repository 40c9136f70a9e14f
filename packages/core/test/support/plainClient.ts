/**
 * amqplib as it comes, with its promises and events as effects: the client in tests of the test support itself.
 */
import type { Channel, ChannelModel, ConsumeMessage } from "amqplib"
import { connect } from "amqplib"
import { Effect } from "effect"
import { connect as connectSocket } from "node:net"
import { encodeMessage, PROTOCOL_HEADER } from "./frames.ts"
import type { ScriptedBroker } from "./ScriptedBroker.ts"

export const call = <A>(f: () => PromiseLike<A>): Effect.Effect<A, Error> =>
  Effect.tryPromise({ try: f, catch: (error) => error as Error })

/** The error that a call must end with. */
export const refusal = <A>(f: () => PromiseLike<A>): Effect.Effect<Error, A> => Effect.flip(call(f))

/** A connection of this scope's. Its close is bounded: amqplib's own may never settle. */
export const connected = (url: string) =>
  Effect.acquireRelease(
    call(() => connect(url, { noDelay: true, timeout: 10_000 })),
    (connection) => call(() => connection.close()).pipe(Effect.ignore, Effect.timeoutOption("200 millis"))
  ).pipe(Effect.tap((connection) => Effect.sync(() => connection.on("error", () => {}))))

export const openChannel = (connection: ChannelModel) =>
  call(() => connection.createChannel()).pipe(Effect.tap((channel) => Effect.sync(() => channel.on("error", () => {}))))

/** Listens at once; the effect completes with the event. */
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

/** A socket that says what it is told to and nothing else. */
export const rawClient = (broker: ScriptedBroker) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly write: (...parts: Array<Buffer>) => void; readonly seen: () => Buffer; close(): void }>(
      (resume) => {
        const seen: Array<Buffer> = []
        const socket = connectSocket(broker.port, broker.host, () => {
          const write = (...parts: Array<Buffer>) => void socket.write(Buffer.concat(parts))
          resume(Effect.succeed({ write, seen: () => Buffer.concat(seen), close: () => void socket.destroy() }))
        })
        socket.on("data", (bytes) => seen.push(bytes))
        socket.on("error", () => {})
      }
    ),
    (client) => Effect.sync(() => client.close())
  )

/** What a client says until its connection is open, all at once. */
export const clientHandshake: Buffer = Buffer.concat([
  PROTOCOL_HEADER,
  encodeMessage(0, "connection.start-ok", { mechanism: "PLAIN", response: "\0guest\0guest", locale: "en_US" }),
  encodeMessage(0, "connection.tune-ok", { channelMax: 16, frameMax: 131_072 }),
  encodeMessage(0, "connection.open", { virtualHost: "/" })
])
