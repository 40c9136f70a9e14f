/**
 * The methods of AMQP 0-9-1 as RabbitMQ speaks it: their ids, their arguments, and who sends them.
 */
import type { FieldTable } from "./fieldTable.ts"

interface FieldTypes {
  readonly bit: boolean
  readonly octet: number
  readonly short: number
  readonly long: number
  /** Delivery tags: a number here, as none of a test's passes 2^53. */
  readonly longlong: number
  /** Seconds since 1970. */
  readonly timestamp: number
  readonly shortstr: string
  readonly longstr: string
  readonly table: FieldTable
}

export type FieldType = keyof FieldTypes
type Fields = Readonly<Record<string, FieldType>>
type Sender = "client" | "server" | "both"

interface Spec<S extends Sender = Sender, F extends Fields = Fields> {
  readonly id: number
  readonly sender: S
  readonly fields: F
}

const spec = <const S extends Sender, const F extends Fields>(
  classId: number,
  methodId: number,
  sender: S,
  fields: F
): Spec<S, F> => ({ id: classId * 0x10000 + methodId, sender, fields })

const none = {} as const
const closeReason = { replyCode: "short", replyText: "shortstr", classId: "short", methodId: "short" } as const
const queueCounts = { queue: "shortstr", messageCount: "long", consumerCount: "long" } as const
const settle = { deliveryTag: "longlong", multiple: "bit" } as const
const exchangeBinding = {
  reserved: "short",
  destination: "shortstr",
  source: "shortstr",
  routingKey: "shortstr",
  noWait: "bit",
  arguments: "table"
} as const
const queueBinding = { reserved: "short", queue: "shortstr", exchange: "shortstr", routingKey: "shortstr" } as const
const messageOrigin = { redelivered: "bit", exchange: "shortstr", routingKey: "shortstr" } as const

export const specs = {
  "connection.start": spec(10, 10, "server", {
    versionMajor: "octet",
    versionMinor: "octet",
    serverProperties: "table",
    mechanisms: "longstr",
    locales: "longstr"
  }),
  "connection.start-ok": spec(10, 11, "client", {
    clientProperties: "table",
    mechanism: "shortstr",
    response: "longstr",
    locale: "shortstr"
  }),
  "connection.secure": spec(10, 20, "server", { challenge: "longstr" }),
  "connection.secure-ok": spec(10, 21, "client", { response: "longstr" }),
  "connection.tune": spec(10, 30, "server", { channelMax: "short", frameMax: "long", heartbeat: "short" }),
  "connection.tune-ok": spec(10, 31, "client", { channelMax: "short", frameMax: "long", heartbeat: "short" }),
  "connection.open": spec(10, 40, "client", { virtualHost: "shortstr", capabilities: "shortstr", insist: "bit" }),
  "connection.open-ok": spec(10, 41, "server", { knownHosts: "shortstr" }),
  "connection.close": spec(10, 50, "both", closeReason),
  "connection.close-ok": spec(10, 51, "both", none),
  "connection.blocked": spec(10, 60, "server", { reason: "shortstr" }),
  "connection.unblocked": spec(10, 61, "server", none),
  "connection.update-secret": spec(10, 70, "client", { newSecret: "longstr", reason: "shortstr" }),
  "connection.update-secret-ok": spec(10, 71, "server", none),

  "channel.open": spec(20, 10, "client", { outOfBand: "shortstr" }),
  "channel.open-ok": spec(20, 11, "server", { channelId: "longstr" }),
  "channel.flow": spec(20, 20, "both", { active: "bit" }),
  "channel.flow-ok": spec(20, 21, "both", { active: "bit" }),
  "channel.close": spec(20, 40, "both", closeReason),
  "channel.close-ok": spec(20, 41, "both", none),

  "exchange.declare": spec(40, 10, "client", {
    reserved: "short",
    exchange: "shortstr",
    type: "shortstr",
    passive: "bit",
    durable: "bit",
    autoDelete: "bit",
    internal: "bit",
    noWait: "bit",
    arguments: "table"
  }),
  "exchange.declare-ok": spec(40, 11, "server", none),
  "exchange.delete": spec(40, 20, "client", {
    reserved: "short",
    exchange: "shortstr",
    ifUnused: "bit",
    noWait: "bit"
  }),
  "exchange.delete-ok": spec(40, 21, "server", none),
  "exchange.bind": spec(40, 30, "client", exchangeBinding),
  "exchange.bind-ok": spec(40, 31, "server", none),
  "exchange.unbind": spec(40, 40, "client", exchangeBinding),
  "exchange.unbind-ok": spec(40, 51, "server", none),

  "queue.declare": spec(50, 10, "client", {
    reserved: "short",
    queue: "shortstr",
    passive: "bit",
    durable: "bit",
    exclusive: "bit",
    autoDelete: "bit",
    noWait: "bit",
    arguments: "table"
  }),
  "queue.declare-ok": spec(50, 11, "server", queueCounts),
  "queue.bind": spec(50, 20, "client", { ...queueBinding, noWait: "bit", arguments: "table" }),
  "queue.bind-ok": spec(50, 21, "server", none),
  "queue.purge": spec(50, 30, "client", { reserved: "short", queue: "shortstr", noWait: "bit" }),
  "queue.purge-ok": spec(50, 31, "server", { messageCount: "long" }),
  "queue.delete": spec(50, 40, "client", {
    reserved: "short",
    queue: "shortstr",
    ifUnused: "bit",
    ifEmpty: "bit",
    noWait: "bit"
  }),
  "queue.delete-ok": spec(50, 41, "server", { messageCount: "long" }),
  "queue.unbind": spec(50, 50, "client", { ...queueBinding, arguments: "table" }),
  "queue.unbind-ok": spec(50, 51, "server", none),

  "basic.qos": spec(60, 10, "client", { prefetchSize: "long", prefetchCount: "short", global: "bit" }),
  "basic.qos-ok": spec(60, 11, "server", none),
  "basic.consume": spec(60, 20, "client", {
    reserved: "short",
    queue: "shortstr",
    consumerTag: "shortstr",
    noLocal: "bit",
    noAck: "bit",
    exclusive: "bit",
    noWait: "bit",
    arguments: "table"
  }),
  "basic.consume-ok": spec(60, 21, "server", { consumerTag: "shortstr" }),
  "basic.cancel": spec(60, 30, "both", { consumerTag: "shortstr", noWait: "bit" }),
  "basic.cancel-ok": spec(60, 31, "both", { consumerTag: "shortstr" }),
  "basic.publish": spec(60, 40, "client", {
    reserved: "short",
    exchange: "shortstr",
    routingKey: "shortstr",
    mandatory: "bit",
    immediate: "bit"
  }),
  "basic.return": spec(60, 50, "server", {
    replyCode: "short",
    replyText: "shortstr",
    exchange: "shortstr",
    routingKey: "shortstr"
  }),
  "basic.deliver": spec(60, 60, "server", { consumerTag: "shortstr", deliveryTag: "longlong", ...messageOrigin }),
  "basic.get": spec(60, 70, "client", { reserved: "short", queue: "shortstr", noAck: "bit" }),
  "basic.get-ok": spec(60, 71, "server", { deliveryTag: "longlong", ...messageOrigin, messageCount: "long" }),
  "basic.get-empty": spec(60, 72, "server", { clusterId: "shortstr" }),
  "basic.ack": spec(60, 80, "both", settle),
  "basic.reject": spec(60, 90, "client", { deliveryTag: "longlong", requeue: "bit" }),
  "basic.recover-async": spec(60, 100, "client", { requeue: "bit" }),
  "basic.recover": spec(60, 110, "client", { requeue: "bit" }),
  "basic.recover-ok": spec(60, 111, "server", none),
  "basic.nack": spec(60, 120, "both", { ...settle, requeue: "bit" }),

  "confirm.select": spec(85, 10, "client", { noWait: "bit" }),
  "confirm.select-ok": spec(85, 11, "server", none),

  "tx.select": spec(90, 10, "client", none),
  "tx.select-ok": spec(90, 11, "server", none),
  "tx.commit": spec(90, 20, "client", none),
  "tx.commit-ok": spec(90, 21, "server", none),
  "tx.rollback": spec(90, 30, "client", none),
  "tx.rollback-ok": spec(90, 31, "server", none)
} as const

type Specs = typeof specs
type Values<F extends Fields> = { readonly [K in keyof F]: FieldTypes[F[K]] }
type SentBy<S extends Sender> = { [M in keyof Specs]: Specs[M]["sender"] extends S | "both" ? M : never }[keyof Specs]

export type Method = keyof Specs
/** A method that a client may send. */
export type ClientMethod = SentBy<"client">
/** A method that a broker may send. */
export type ServerMethod = SentBy<"server">
export type Args<M extends Method> = Values<Specs[M]["fields"]>

/** The properties of a message, in the order of their flags. */
export const properties = {
  contentType: "shortstr",
  contentEncoding: "shortstr",
  headers: "table",
  deliveryMode: "octet",
  priority: "octet",
  correlationId: "shortstr",
  replyTo: "shortstr",
  expiration: "shortstr",
  messageId: "shortstr",
  timestamp: "timestamp",
  type: "shortstr",
  userId: "shortstr",
  appId: "shortstr",
  clusterId: "shortstr"
} as const satisfies Fields

export type Properties = Partial<Values<typeof properties>>

/** The class and method ids that a close names as its cause; zeros for what is not a method. */
export const causeOf = (method: string): { readonly classId: number; readonly methodId: number } => {
  const id = Object.hasOwn(specs, method) ? specs[method as Method].id : 0
  return { classId: id >>> 16, methodId: id & 0xffff }
}
