/** Generated messages of every kind, and their expected values on arrival. */
import type { AmqpMessage } from "@effect-amqp/core"
import { Arbitrary, BigDecimal, DateTime, Duration, Schema } from "effect"

const oneOf = <A>(...members: ReadonlyArray<Arbitrary.Arbitrary<A>>): Arbitrary.Arbitrary<A> =>
  Arbitrary.flatMap(
    Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: members.length - 1 }))),
    (i) => members[i]!
  )

const among = <A>(...values: ReadonlyArray<A>): Arbitrary.Arbitrary<A> =>
  oneOf<A>(...values.map((value) => Arbitrary.Constant(value) as Arbitrary.Arbitrary<A>))

const int = (minimum: number, maximum: number) =>
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum, maximum })))

const around = (...values: ReadonlyArray<number>) => values.flatMap((value) => [value - 1, value, value + 1])

const integer = oneOf<number>(
  among(0, ...around(2 ** 7, 2 ** 8, 2 ** 15, 2 ** 16, 2 ** 31, 2 ** 32, 2 ** 50).flatMap((n) => [n, -n])),
  among(Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER),
  int(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)
)

const double = oneOf<number>(
  among(-0, 0.1, -0.5, 2 ** 50 + 0.5, -(2 ** 51) - 0.5, 2 ** 53, -(2 ** 53), 2 ** 63, -(2 ** 63), 2 ** 64, 1e300),
  among(Number.MAX_VALUE, -Number.MAX_VALUE, Number.MIN_VALUE, Number.EPSILON, Math.PI),
  Arbitrary.schema(Schema.Finite)
)

const long = oneOf<bigint>(
  among(0n, -1n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, -(2n ** 53n) - 1n, 2n ** 63n - 1n, -(2n ** 63n)),
  Arbitrary.schema(Schema.BigInt.check(Schema.isBetweenBigInt({ minimum: -(2n ** 63n), maximum: 2n ** 63n - 1n })))
)

const text = oneOf<string>(
  among("", "\0", "grüße", "日本語", "🐇", "\uFEFFmark", "\uFFFD", "!", "__proto__", "x".repeat(300)),
  Arbitrary.map(Arbitrary.schema(Schema.String), (text) => text.toWellFormed())
)

const bytes = oneOf<Uint8Array>(
  among(new Uint8Array(0), Uint8Array.of(0, 255, 128), Buffer.from("buffer"), new Uint8Array(20).subarray(5, 9)),
  Arbitrary.map(Arbitrary.array(int(0, 255)), (bytes) => Uint8Array.from(bytes))
)

const date = oneOf<Date | DateTime.DateTime>(
  among(new Date(0), new Date(999), new Date(8.64e15), new Date("2026-11-20T12:34:56.789Z")),
  Arbitrary.map(int(0, 8.64e15), (millis) => new Date(millis)),
  Arbitrary.map(int(0, 8.64e15), (millis) => DateTime.makeUnsafe(millis))
)

const decimal = Arbitrary.map(Arbitrary.all([int(0, 2 ** 32 - 1), int(0, 255)]), ([digits, places]) =>
  BigDecimal.make(BigInt(digits), places)
)

const leaf: Arbitrary.Arbitrary<AmqpMessage.FieldValue> = oneOf<AmqpMessage.FieldValue>(
  among<AmqpMessage.FieldValue>(null, true, false),
  integer,
  double,
  long,
  text,
  bytes,
  date,
  decimal
)

const key = oneOf<string>(
  among("", "!", "__proto__", "constructor", "toString", "ключ", "🐇", "a.b", "0", "x".repeat(255), "ü".repeat(127)),
  Arbitrary.map(Arbitrary.schema(Schema.String), (text) => text.toWellFormed().slice(0, 60).toWellFormed())
)

const tableOf = (value: Arbitrary.Arbitrary<AmqpMessage.FieldValue>) =>
  Arbitrary.map(Arbitrary.array(Arbitrary.all([key, value]), { maxLength: 6 }), (entries) => {
    const table: Record<string, AmqpMessage.FieldValue> = {}
    for (const [key, value] of entries) {
      Object.defineProperty(table, key, { value, enumerable: true, configurable: true, writable: true })
    }
    return table
  })

const valueOf = (depth: number): Arbitrary.Arbitrary<AmqpMessage.FieldValue> => {
  if (depth === 0) return leaf
  const inner = valueOf(depth - 1)
  return oneOf<AmqpMessage.FieldValue>(leaf, leaf, Arbitrary.array(inner, { maxLength: 4 }), tableOf(inner))
}

/** Tables of every kind of value, nested three deep. */
export const tables: Arbitrary.Arbitrary<AmqpMessage.FieldTable> = tableOf(valueOf(3))

const name = oneOf<string>(
  among("", "grüße", "🐇", "x".repeat(255)),
  Arbitrary.map(Arbitrary.schema(Schema.String), (text) => text.toWellFormed().slice(0, 60).toWellFormed())
)

const maybe = <A>(value: Arbitrary.Arbitrary<A>) => oneOf<A | undefined>(Arbitrary.Constant(undefined), value)

/** Properties of every kind except `userId`, which the broker checks. */
export const properties: Arbitrary.Arbitrary<AmqpMessage.Properties> = Arbitrary.all({
  contentType: maybe(name),
  contentEncoding: maybe(name),
  headers: maybe(tables),
  persistent: maybe(among(true, false)),
  priority: maybe(int(0, 255)),
  correlationId: maybe(name),
  replyTo: maybe(name),
  // Long enough for the message to arrive.
  expiration: maybe<Duration.Input>(oneOf<Duration.Input>(int(600_000, 315_360_000_000), among("1 hour", "2 hours"))),
  messageId: maybe(name),
  timestamp: maybe(date),
  type: maybe(name),
  userId: Arbitrary.Constant(undefined),
  appId: maybe(name)
})

/** Content of every kind. */
export const contents: Arbitrary.Arbitrary<string | Uint8Array> = oneOf<string | Uint8Array>(text, bytes)

const wholeSeconds = (value: Date | DateTime.DateTime): Date =>
  new Date(Math.floor((value instanceof Date ? value.getTime() : DateTime.toEpochMillis(value)) / 1000) * 1000)

/** The value that is delivered for a published one. */
export const delivered = (value: unknown): unknown => {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : value
  if (typeof value !== "object" || value === null || BigDecimal.isBigDecimal(value)) return value
  if (value instanceof Uint8Array) return Uint8Array.from(value)
  if (value instanceof Date || DateTime.isDateTime(value)) return wholeSeconds(value)
  if (Array.isArray(value)) return value.map(delivered)
  return deliveredTable(value as AmqpMessage.FieldTable)
}

export const deliveredTable = (table: AmqpMessage.FieldTable): AmqpMessage.FieldTable => {
  const copy: Record<string, unknown> = Object.create(null)
  for (const [key, value] of Object.entries(table)) if (value !== undefined) copy[key] = delivered(value)
  return copy as AmqpMessage.FieldTable
}

/** The properties that are delivered for published ones. */
export const deliveredProperties = (properties: AmqpMessage.Properties): AmqpMessage.DeliveredProperties => ({
  contentType: properties.contentType,
  contentEncoding: properties.contentEncoding,
  headers: deliveredTable(properties.headers ?? {}),
  persistent: properties.persistent ?? true,
  priority: properties.priority,
  correlationId: properties.correlationId,
  replyTo: properties.replyTo,
  expiration: properties.expiration === undefined ? undefined : Duration.toMillis(properties.expiration),
  messageId: properties.messageId,
  timestamp: properties.timestamp === undefined ? undefined : wholeSeconds(properties.timestamp),
  type: properties.type,
  userId: properties.userId,
  appId: properties.appId
})
