/**
 * A memory broker as a source of `TestBroker`: it listens for clients, and for the commands with which `TestBroker` counts
 * and causes faults. Each command is JSON, in the frames of `control.ts`.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Crypto from "node:crypto"
import * as Net from "node:net"
import type { TestBrokerError } from "../../TestBrokerError.ts"
import type { Coordinates } from "../broker.ts"
import { live } from "../liveClock.ts"
import { Broker } from "./model/broker.ts"
import * as Server from "./server.ts"
import * as Timers from "./timers.ts"
import { type Version, behaviors } from "./version.ts"

/** A command of `operations.ts`. */
export type Command =
  | { readonly do: "addVhost" | "deleteVhost" | "census" | "queues" | "killConnections"; readonly vhost: string }
  | { readonly do: "closeConnections"; readonly vhost: string; readonly reason: string }
  | { readonly do: "blockPublishers" | "unblockPublishers" }

const queuesIn = (broker: Broker, vhost: string) => [...(broker.vhosts.get(vhost)?.queues.values() ?? [])]

const census = (broker: Broker, vhost: string) => {
  const sessions = [...broker.sessions].filter((session) => session.vhost.name === vhost)
  const channels = sessions.flatMap((session) => [...session.channels.values()])
  const queues = queuesIn(broker, vhost)
  const sum = (numbers: ReadonlyArray<number>) => numbers.reduce((all, one) => all + one, 0)
  return {
    connections: sessions.length,
    channels: channels.length,
    consumers: sum(channels.map(({ consumers }) => consumers)),
    unacked: sum(channels.map(({ unsettled }) => unsettled)),
    unconfirmed: 0,
    queues: queues.length,
    messages: sum(queues.map(({ total }) => total))
  }
}

const queueRows = (broker: Broker, vhost: string) =>
  queuesIn(broker, vhost).map(({ consumers, name, ready, total, unsettled }) => ({
    name: Buffer.from(name).toString("base64"),
    messages: total,
    ready,
    unacked: unsettled,
    consumers: consumers.length
  }))

const run = (broker: Broker, command: Command): unknown => {
  switch (command.do) {
    case "addVhost":
      return broker.addVhost(command.vhost)
    case "deleteVhost":
      return broker.deleteVhost(command.vhost)
    case "census":
      return census(broker, command.vhost)
    case "queues":
      return queueRows(broker, command.vhost)
    case "killConnections":
      return broker.cut(command.vhost)
    case "closeConnections":
      return broker.close(command.reason, command.vhost)
    case "blockPublishers":
      return broker.raiseAlarm("low on memory")
    case "unblockPublishers":
      return broker.clearAlarm()
  }
}

/** Answers the expressions with which tests ask for the version of their broker. `undefined`: it is another one. */
const versionAnswer = (broker: Broker, erlang: string): string | undefined => {
  const own = broker.behavior.product.split(".").map(Number)
  if (erlang.includes('hd(string:lexemes(rabbit_misc:version(), "."))')) return String(own[0])
  const wanted = /version_compare\(rabbit_misc:version\(\), "([\d.]+)", gte\)/.exec(erlang)?.[1]
  if (wanted === undefined) return undefined
  const theirs = wanted.split(".").map(Number)
  const index = own.findIndex((number, at) => number !== theirs[at])
  return String(index < 0 || own[index]! > (theirs[index] ?? 0))
}

const answer = (broker: Broker, request: string): string => {
  let command: Command
  try {
    // `operations.ts` of the same version writes it. A test may send Erlang.
    command = JSON.parse(request) as Command
  } catch {
    const version = versionAnswer(broker, request)
    if (version !== undefined) return `+${version}`
    return "-The memory broker evaluates no Erlang: use a real broker for this test"
  }
  return `+${JSON.stringify(broker.run(() => run(broker, command)) ?? null)}`
}

const serve = (broker: Broker, token: string) => (socket: Net.Socket) => {
  const chunks: Array<Buffer> = []
  socket.on("error", () => socket.destroy())
  socket.on("data", (chunk: Buffer) => {
    chunks.push(chunk)
    const bytes = Buffer.concat(chunks)
    if (bytes.length < 4 || bytes.length < 4 + bytes.readUInt32BE(0)) return
    const request = bytes.toString("utf8", 4)
    if (!request.startsWith(token)) return void socket.destroy()
    const reply = Buffer.from(answer(broker, request.slice(token.length)))
    const head = Buffer.alloc(4)
    head.writeUInt32BE(reply.length)
    socket.end(Buffer.concat([head, reply]))
  })
}

const control = (broker: Broker, token: string): Effect.Effect<number, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer(serve(broker, token))
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
  ).pipe(
    Effect.map((server) => {
      const address = server.address()
      return typeof address === "object" && address !== null ? address.port : 0
    })
  )

const isVersion = (text: string): text is Version => text in behaviors

/** Starts a memory broker that listens, until the scope closes. */
export const start: Effect.Effect<Coordinates, TestBrokerError, Scope.Scope> = Effect.gen(function* () {
  const given = process.env["AMQP_TEST_MEMORY_VERSION"] ?? ""
  const version = isVersion(given) ? given : "4.3"
  const broker = new Broker(yield* Timers.make, { version, keepsPublications: false })
  const token = Crypto.randomBytes(24).toString("hex")
  const port = yield* control(broker, token)
  const url = yield* Server.listen(broker, 0)
  return {
    origin: "memory" as const,
    url,
    description: `in memory: it plays RabbitMQ ${version}, and keeps nothing when this process ends`,
    control: { host: "127.0.0.1", port, token }
  }
}).pipe(live)
