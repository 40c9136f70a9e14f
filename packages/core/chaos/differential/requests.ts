/**
 * Single requests for a broker: each argument of queues, consumers and exchanges that RabbitMQ knows, with good values and
 * bad ones, and each method and property for which the memory broker may do nothing.
 */
import {
  BrokerClose,
  type ChannelEvents,
  type DriverChannel,
  type DriverConnection
} from "../../src/internal/driver/driver.ts"
import type { FieldTable } from "../../src/model/message.ts"
import { Outgoing } from "../../src/internal/wire/properties.ts"
import { bytesOfTable } from "../../src/internal/wire/tableBytes.ts"

export interface Request {
  readonly title: string
  /** `name` is that of the queue or the exchange of the request, which does not exist before. */
  readonly ask: (channel: DriverChannel, name: string) => Promise<unknown>
}

type Arguments = Readonly<Record<string, unknown>>

const numbers = [0, 1, 2, 1000, -1, 400_000_000_000, "1000", true]
const booleans = [true, false, "true", 1]

const queueArguments: Readonly<Record<string, ReadonlyArray<unknown>>> = {
  "x-queue-type": ["classic", "quorum", "stream", "other", 3],
  "x-expires": [1000, 0, -1, 400_000_000_000, "1000"],
  "x-message-ttl": numbers,
  "x-dead-letter-exchange": ["", "nowhere", 1],
  "x-dead-letter-routing-key": ["a", 1],
  "x-dead-letter-strategy": ["at-most-once", "at-least-once", "never", 1],
  "x-max-length": numbers,
  "x-max-length-bytes": numbers,
  "x-max-in-memory-length": [1, -1, "1"],
  "x-max-in-memory-bytes": [1, -1, "1"],
  "x-max-priority": [0, 5, 255, 256, -1, "5"],
  "x-overflow": ["drop-head", "reject-publish", "reject-publish-dlx", "never", 1],
  "x-queue-mode": ["default", "lazy", "never", 1],
  "x-queue-version": [1, 2, 3, -1, "2"],
  "x-single-active-consumer": booleans,
  "x-delivery-limit": [0, 3, -1, "3"],
  "x-quorum-initial-group-size": [1, 3, 0, -1, "3"],
  "x-quorum-target-group-size": [3, "3"],
  "x-queue-leader-locator": ["client-local", "balanced", "random", "least-leaders", "never", 1],
  "x-queue-master-locator": ["client-local", "min-masters", "random", "never"],
  "x-consumer-timeout": numbers,
  "x-consumer-disconnected-timeout": numbers,
  "x-delayed-retry-type": ["all", "failed", "disabled", "never", 1],
  "x-delayed-retry-min": [1000, -1, "1000"],
  "x-delayed-retry-max": [1000, -1, "1000"],
  "x-max-age": ["1h", "1", 1],
  "x-stream-max-segment-size-bytes": [1_000_000, -1],
  "x-stream-filter-size-bytes": [16, 64, -1],
  "x-initial-cluster-size": [1, 0],
  "x-unknown": [1]
}

const consumerArguments: Readonly<Record<string, ReadonlyArray<unknown>>> = {
  "x-priority": [1, -1, "1", true],
  "x-consumer-timeout": [60_000, 0, -1, "1", true],
  "x-cancel-on-ha-failover": booleans,
  "x-credit": [{ credit: 1, drain: false }, 1],
  "x-stream-offset": ["first", 0, "never"],
  "x-stream-filter": ["a"],
  "x-stream-match-unfiltered": [true],
  "x-unknown": [1]
}

const types = { "the default type": {}, classic: { "x-queue-type": "classic" }, quorum: { "x-queue-type": "quorum" } }

const json = (value: unknown): string => JSON.stringify(value) ?? "undefined"

const declare = (channel: DriverChannel, name: string, args: Arguments, flags = {}) =>
  channel.queueDeclare(name, {
    durable: true,
    exclusive: false,
    autoDelete: false,
    ...flags,
    arguments: args as FieldTable
  })

const valuesOf = (all: Readonly<Record<string, ReadonlyArray<unknown>>>) =>
  Object.entries(all).flatMap(([key, values]) => values.map((value) => [key, value] as const))

/** Arguments that need others to be accepted. */
const others: Readonly<Record<string, Arguments>> = {
  "x-dead-letter-strategy": { "x-dead-letter-exchange": "", "x-overflow": "reject-publish" },
  "x-delayed-retry-min": { "x-delayed-retry-type": "all" },
  "x-delayed-retry-max": { "x-delayed-retry-type": "all", "x-delayed-retry-min": 1 }
}

const queueRequests: ReadonlyArray<Request> = valuesOf(queueArguments).flatMap(([key, value]) =>
  (key === "x-queue-type" ? [["", {}] as const] : Object.entries(types)).map(([type, args]) => ({
    title: `queue.declare of ${type} with ${key} ${json(value)}`,
    ask: (channel, name) => declare(channel, name, { ...args, ...others[key], [key]: value })
  }))
)

const flagRequests: ReadonlyArray<Request> = Object.entries(types).flatMap(([type, args]) =>
  [{ durable: false }, { exclusive: true }, { autoDelete: true }, { durable: false, exclusive: true }].map((flags) => ({
    title: `queue.declare of ${type} with ${json(flags)}`,
    ask: (channel, name) => declare(channel, name, args, flags)
  }))
)

const consumerRequests: ReadonlyArray<Request> = valuesOf(consumerArguments).flatMap(([key, value]) =>
  Object.entries({
    ...types,
    "a single active consumer": { "x-single-active-consumer": true },
    "a single active consumer, quorum": { "x-single-active-consumer": true, "x-queue-type": "quorum" }
  }).map(([type, args]) => ({
    title: `basic.consume of ${type} with ${key} ${json(value)}`,
    ask: async (channel, name) => {
      await declare(channel, name, args)
      return channel.consume(name, "c", {
        noAck: false,
        exclusive: false,
        arguments: { [key]: value } as unknown as FieldTable
      })
    }
  }))
)

const exchangeTypes = [
  "direct",
  "fanout",
  "topic",
  "headers",
  "strange",
  "x-strange",
  "x-delayed-message",
  "x-consistent-hash",
  "x-random",
  "x-local-random",
  "x-modulus-hash",
  "x-recent-history",
  "x-jms-topic"
]

const exchangeRequests: ReadonlyArray<Request> = [
  ...exchangeTypes.map((type): Request => ({
    title: `exchange.declare of the type ${type}`,
    ask: (channel, name) => channel.exchangeDeclare(name, type, {})
  })),
  ...["alternate-exchange", "x-delayed-type", "hash-header", "x-unknown"].flatMap((key) =>
    ["direct", 1].map((value): Request => ({
      title: `exchange.declare with ${key} ${json(value)}`,
      ask: (channel, name) => channel.exchangeDeclare(name, "direct", { arguments: { [key]: value } })
    }))
  ),
  ...["", "amq.direct", "amq.other", "amq.rabbitmq.trace"].map((name): Request => ({
    title: `exchange.declare of ${json(name)}`,
    ask: (channel) => channel.exchangeDeclare(name, "topic", { durable: true })
  })),
  ...["amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match", "amq.rabbitmq.trace"].map(
    (name): Request => ({
      title: `exchange.declare, passive, of ${name}`,
      ask: (channel) => channel.exchangeDeclarePassive(name)
    })
  )
]

const publish = (fields: Partial<Outgoing> & { readonly table?: Buffer }): Request["ask"] =>
  async function (channel, name) {
    await declare(channel, name, {})
    await channel.select("confirm")
    const bytes = Object.assign(new Outgoing(), {
      routingKey: name,
      content: Buffer.from("a"),
      mandatory: true,
      ...fields
    })
    channel.publish(bytes)
    // A queue takes its time for a message. An error of the publish ends this.
    for (let polls = 0; polls < 400; polls++) {
      const { messageCount } = await channel.queueDeclarePassive(name)
      if (messageCount > 0) return messageCount
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    return "no message"
  }

const publishRequests: ReadonlyArray<Request> = [
  ...["60000", "-1", "abc", "1.5", "", "999999999999"].map((expiration): Request => ({
    title: `basic.publish with the expiration ${json(expiration)}`,
    ask: publish({ expiration })
  })),
  ...["guest", "other"].map((userId): Request => ({
    title: `basic.publish of the user ${userId}`,
    ask: publish({ userId })
  })),
  ...["CC", "BCC"].flatMap((key) =>
    [["a"], [], "a", 1, [1]].map((value): Request => ({
      title: `basic.publish with ${key} ${json(value)}`,
      ask: publish({ table: bytesOfTable({ [key]: value } as unknown as FieldTable) })
    }))
  ),
  { title: "basic.publish with a reply to no consumer", ask: publish({ replyTo: "amq.rabbitmq.reply-to" }) },
  { title: "basic.publish with a priority", ask: publish({ priority: 200 }) }
]

const methodRequests: ReadonlyArray<Request> = [
  { title: "channel.flow, active", ask: (channel) => channel.flow(true) },
  { title: "channel.flow, not active", ask: (channel) => channel.flow(false) },
  { title: "tx.select", ask: (channel) => channel.select("transaction") },
  { title: "tx.commit without tx.select", ask: (channel) => channel.commit() },
  { title: "tx.rollback without tx.select", ask: (channel) => channel.rollback() },
  { title: "confirm.select twice", ask: (channel) => channel.select("confirm").then(() => channel.select("confirm")) },
  { title: "basic.qos, global", ask: (channel) => channel.qos(1, true) },
  {
    title: "basic.consume of a quorum queue after basic.qos, global",
    ask: async (channel, name) => {
      await channel.qos(1, true)
      await declare(channel, name, types.quorum)
      return channel.consume(name, "c", { noAck: false, exclusive: false, arguments: {} })
    }
  },
  { title: "basic.get of a stranger", ask: (channel, name) => channel.get(name, false) },
  { title: "queue.declare of a reserved name", ask: (channel) => declare(channel, "amq.other", {}) },
  {
    title: "queue.declare without a name",
    ask: (channel) => declare(channel, "", {}, { exclusive: true }).then(() => "ok")
  },
  {
    title: "queue.declare without a name, quorum",
    ask: (channel) => declare(channel, "", types.quorum).then(() => "ok")
  },
  {
    title: "queue.declare, passive, of consumers with one active",
    ask: async (channel, name) => {
      await declare(channel, name, { "x-single-active-consumer": true })
      await channel.consume(name, "a", { noAck: false, exclusive: false, arguments: {} })
      await channel.consume(name, "b", { noAck: false, exclusive: false, arguments: {} })
      return channel.queueDeclarePassive(name)
    }
  },
  {
    title: "queue.declare, passive, of consumers with one active, quorum",
    ask: async (channel, name) => {
      await declare(channel, name, { "x-single-active-consumer": true, "x-queue-type": "quorum" })
      await channel.consume(name, "a", { noAck: false, exclusive: false, arguments: {} })
      await channel.consume(name, "b", { noAck: false, exclusive: false, arguments: {} })
      return channel.queueDeclarePassive(name)
    }
  }
]

export const requests: ReadonlyArray<Request> = [
  ...queueRequests,
  ...flagRequests,
  ...consumerRequests,
  ...exchangeRequests,
  ...publishRequests,
  ...methodRequests
]

const ignore = () => {}

const openChannel = (connection: DriverConnection): Promise<DriverChannel> =>
  new Promise((resolve, reject) => {
    const events: ChannelEvents = {
      opened: () => resolve(channel),
      notOpened: reject,
      delivered: ignore,
      returned: ignore,
      confirmed: ignore,
      flow: ignore,
      cancelled: ignore,
      oversized: () => false,
      undecodable: () => false,
      drained: ignore,
      closed: ignore,
      gone: ignore
    }
    const channel = connection.openChannel(events)
  })

/** What a client gets for each request, in their order. */
export const answers = async (
  connect: () => Promise<DriverConnection>,
  prefix: string
): Promise<ReadonlyArray<string>> => {
  const all: Array<string> = []
  let connection: DriverConnection | undefined
  let end: unknown
  const connected = async (): Promise<DriverConnection> => {
    if (connection !== undefined && end === undefined) return connection
    end = undefined
    connection = await connect()
    connection.watch({ blocked: ignore, unblocked: ignore, secretUpdated: ignore, ended: (cause) => (end = cause) })
    return connection
  }
  for (const [index, { ask }] of requests.entries()) {
    const name = `${prefix}${index}`
    let channel: DriverChannel | undefined
    let answer: string
    try {
      channel = await openChannel(await connected())
      answer = json((await ask(channel, name)) ?? "ok")
    } catch (cause) {
      const close = end instanceof BrokerClose ? end : cause
      answer = close instanceof BrokerClose ? `${close.of} ${close.code} ${close.message}` : String(close)
    }
    all.push(answer.replaceAll(name, "name").replaceAll(/vhost '[^']*'/g, "vhost"))
    channel?.close()
    const cleaner = await openChannel(await connected())
    await cleaner.queueDelete(name, { ifEmpty: false, ifUnused: false }).catch(ignore)
    cleaner.close()
    const another = await openChannel(await connected())
    await another.exchangeDelete(name, { ifUnused: false }).catch(ignore)
    another.close()
  }
  connection?.destroy(new Error("all requests are answered"))
  return all
}
