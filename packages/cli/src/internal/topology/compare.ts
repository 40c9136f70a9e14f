/**
 * Compares exchanges and queues with the broker, over AMQP alone and without changing anything.
 *
 * A passive declaration says whether a name exists. An active one with the topology's properties then says whether they
 * are equal: the broker refuses it if they are not, and does nothing if they are. Between the two the name could be
 * deleted, and the second would create it as the topology describes it.
 */
import { type AmqpError, AmqpPool, type AmqpChannel, type AmqpTopology } from "@effect-amqp/core"
import * as Effect from "effect/Effect"

export interface Compared {
  readonly kind: "exchange" | "queue"
  readonly name: string
  /** Declared as external: only its existence is compared. */
  readonly external: boolean
  /**
   * `unknown`: it exists, and its properties cannot be compared by this user or on this connection. `unsupported`: this
   * broker does not have what it declares.
   */
  readonly status: "equal" | "missing" | "different" | "unknown" | "unsupported"
  /** The first property that differs, with both values as the broker prints them. */
  readonly property?: string | undefined
  readonly declared?: string | undefined
  readonly existing?: string | undefined
  /** Why it is different, unknown or unsupported. */
  readonly message?: string | undefined
  /** Of a queue that exists: messages that are ready, and consumers. */
  readonly messages?: number | undefined
  readonly consumers?: number | undefined
}

/** How a broker answers for one name. Any other failure, such as a timeout, says nothing about a name. */
const answers: ReadonlySet<string> = new Set([
  "NotFound",
  "AccessRefused",
  "PreconditionFailed",
  "ResourceLocked",
  "InvalidArgument",
  "BrokerError",
  "ChannelClosed"
])

type Result<A> = { readonly ok: A } | { readonly reason: AmqpError.AmqpErrorReason }

/** One operation on a channel of its own: the broker closes the channel on which it refuses. */
const attempt = <A>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, AmqpError.AmqpError>) =>
  AmqpPool.AmqpPool.use((pool) => pool.use(f)).pipe(
    Effect.map((ok): Result<A> => ({ ok })),
    Effect.catchTag("AmqpError", (error) =>
      error.severity === "connection" || !answers.has(error.reason._tag)
        ? Effect.fail(error)
        : Effect.succeed<Result<A>>({ reason: error.reason })
    )
  )

const refused = (
  reason: AmqpError.AmqpErrorReason
): Pick<Compared, "status" | "property" | "declared" | "existing" | "message"> => {
  const { message } = reason
  switch (reason._tag) {
    case "PreconditionFailed":
      return {
        status: "different",
        property: reason.argument,
        declared: reason.received,
        existing: reason.current,
        message
      }
    case "InvalidArgument":
      return { status: "unsupported", property: reason.argument, message }
    default:
      return { status: "unknown", message }
  }
}

const looked = (reason: AmqpError.AmqpErrorReason) =>
  reason._tag === "NotFound" ? { status: "missing" as const } : { status: "unknown" as const, message: reason.message }

const compareExchange = Effect.fnUntraced(function* ({ name, options, type }: AmqpTopology.Exchange) {
  const base = { kind: "exchange" as const, name, external: false }
  const found = yield* attempt((channel) => channel.exchangeDeclarePassive(name))
  if ("reason" in found) return { ...base, ...looked(found.reason) }
  const declared = yield* attempt((channel) => channel.exchangeDeclare(name, type, options))
  return { ...base, ...("ok" in declared ? { status: "equal" as const } : refused(declared.reason)) }
})

const compareQueue = Effect.fnUntraced(function* ({ name, options }: AmqpTopology.Queue) {
  const base = { kind: "queue" as const, name, external: false }
  if (options.exclusive === true) {
    return { ...base, status: "equal" as const, message: "exclusive: each connection declares its own" }
  }
  const found = yield* attempt((channel) => channel.queueDeclarePassive(name))
  if ("reason" in found) return { ...base, ...looked(found.reason) }
  const counts = { messages: found.ok.messageCount, consumers: found.ok.consumerCount }
  const declared = yield* attempt((channel) => channel.queueDeclare(name, options))
  return { ...base, ...counts, ...("ok" in declared ? { status: "equal" as const } : refused(declared.reason)) }
})

const compareExternal = Effect.fnUntraced(function* ({ name, type }: AmqpTopology.External) {
  const base = { kind: type, name, external: true }
  if (type === "exchange") {
    const found = yield* attempt((channel) => channel.exchangeDeclarePassive(name))
    return { ...base, ...("ok" in found ? { status: "equal" as const } : looked(found.reason)) }
  }
  const found = yield* attempt((channel) => channel.queueDeclarePassive(name))
  return "ok" in found
    ? { ...base, status: "equal" as const, messages: found.ok.messageCount, consumers: found.ok.consumerCount }
    : { ...base, ...looked(found.reason) }
})

/** Compares everything that a topology names. */
export const compare = (
  topology: AmqpTopology.AmqpTopology
): Effect.Effect<ReadonlyArray<Compared>, AmqpError.AmqpError, AmqpPool.AmqpPool> =>
  Effect.all([
    ...topology.exchanges.map(compareExchange),
    ...topology.queues.map(compareQueue),
    ...topology.external.map(compareExternal)
  ])

export const isEqual = ({ status }: Compared): boolean => status === "equal"
