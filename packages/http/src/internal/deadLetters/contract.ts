/** The shapes of the dead letters' routes on the wire, for the server, for clients and for the OpenAPI document. */
import * as HttpApi from "effect/http-api/HttpApi"
import * as HttpApiEndpoint from "effect/http-api/HttpApiEndpoint"
import * as HttpApiGroup from "effect/http-api/HttpApiGroup"
import * as OpenApi from "effect/http-api/OpenApi"
import * as Schema from "effect/Schema"

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const Text = Schema.String
const Kind = Schema.Literals(["failed", "rejected", "expired", "maxlen", "delivery_limit", "unknown"])
const optional = Schema.optionalKey

export const Letter = Schema.Struct({
  id: Text,
  queue: Text,
  exchange: Text,
  routingKey: Text,
  origin: optional(
    Schema.Struct({ queue: Text, offset: optional(Count), exchange: optional(Text), routingKey: optional(Text) })
  ),
  reason: Schema.Struct({
    kind: Kind,
    error: optional(Text),
    message: optional(Text),
    attempt: optional(Count),
    consumer: optional(Text),
    host: optional(Text),
    firstAt: optional(Schema.DateFromString),
    lastAt: optional(Schema.DateFromString),
    traceId: optional(Text),
    verified: Schema.Boolean
  }),
  redriven: Count,
  redelivered: Schema.Boolean,
  size: Count,
  /** The properties, with `headers`, as JSON. */
  properties: Schema.Record(Text, Schema.Unknown),
  /** The first bytes of the content if they are UTF-8. */
  content: optional(Text),
  /** The first bytes of the content in base64 if they are not UTF-8. */
  base64: optional(Text)
}).annotate({ identifier: "DeadLetter" })

export const Page = Schema.Struct({
  total: Count,
  queues: Schema.Array(Schema.Struct({ queue: Text, total: Count })),
  scanned: Count,
  unreadable: Count,
  letters: Schema.Array(Letter),
  groups: Schema.Array(
    Schema.Struct({
      kind: Kind,
      error: optional(Text),
      origin: optional(Text),
      queue: Text,
      count: Count,
      firstAt: optional(Schema.DateFromString),
      lastAt: optional(Schema.DateFromString)
    })
  )
}).annotate({ identifier: "DeadLetterPage" })

const counts = {
  total: Count,
  scanned: Count,
  redriven: Count,
  discarded: Count,
  left: Count,
  duplicates: Count,
  failed: Count
}

export const Progress = Schema.Struct({ queue: Text, ...counts }).annotate({ identifier: "DeadLetterProgress" })

export const Report = Schema.Struct({
  ...counts,
  dryRun: Schema.Boolean,
  unreadable: Count,
  failures: Schema.Array(Schema.Struct({ id: Text, queue: Text, message: Text }))
}).annotate({ identifier: "DeadLetterReport" })

const Id = Schema.String.check(Schema.isMaxLength(1024))

/** What chooses dead letters. Several of them must all choose a dead letter. */
const choice = {
  ids: optional(Schema.Array(Id).check(Schema.isMinLength(1), Schema.isMaxLength(10_000))),
  error: optional(Text),
  kind: optional(Kind),
  /** The queue in which they failed. */
  origin: optional(Text),
  /** They failed last before this time. */
  before: optional(Schema.DateFromString),
  /** They failed last at this time or later. */
  since: optional(Schema.DateFromString)
}

const moving = {
  ...choice,
  /** All of them. Required if nothing else chooses. */
  all: optional(Schema.Boolean),
  limit: optional(Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))),
  /** Per second. */
  rate: optional(Schema.Finite.check(Schema.isGreaterThan(0))),
  dryRun: optional(Schema.Boolean)
}

export const Discard = Schema.Struct(moving).annotate({ identifier: "DiscardDeadLetters" })

export const Redrive = Schema.Struct({
  ...moving,
  /** The name of a queue, or an exchange with a routing key. */
  to: optional(Schema.Union([Text, Schema.Struct({ exchange: Text, routingKey: Text })]))
}).annotate({ identifier: "RedriveDeadLetters" })

/** The parameters of a page, all of them texts. */
export const Query = Schema.Struct({
  error: optional(Text),
  kind: optional(Kind),
  origin: optional(Text),
  before: optional(Schema.DateFromString),
  since: optional(Schema.DateFromString),
  limit: optional(Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 1, maximum: 10_000 }))),
  maxContent: optional(
    Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 0, maximum: 1_048_576 }))
  )
})

export type Choice = Pick<typeof Discard.Type, keyof typeof choice>

/** A refusal: problem details (RFC 9457). */
const Problem = <const Status extends number>(status: Status) =>
  Schema.Struct({
    type: Text,
    title: Text,
    status: Schema.Literal(status),
    detail: optional(Text)
  }).annotate({ httpApiStatus: status, identifier: `Problem${status}` })

const errors = [
  Problem(400),
  Problem(401),
  Problem(403),
  Problem(404),
  Problem(409),
  Problem(413),
  Problem(415),
  Problem(500),
  Problem(503),
  Problem(504)
] as const

/** The routes as an `HttpApi`, below a path. */
export const apiAt = <const Path extends `/${string}`>(path: Path) =>
  HttpApi.make("effect-amqp/dead-letters")
    .add(
      HttpApiGroup.make("deadLetters").add(
        HttpApiEndpoint.get("peek", "/", { query: Query, success: Page, error: errors }),
        HttpApiEndpoint.get("peekQueue", "/queues/:queue", {
          params: { queue: Text },
          query: Query,
          success: Page,
          error: errors
        }),
        HttpApiEndpoint.post("redrive", "/queues/:queue/redrive", {
          params: { queue: Text },
          payload: Redrive,
          success: Report,
          error: errors
        }),
        HttpApiEndpoint.post("discard", "/queues/:queue/discard", {
          params: { queue: Text },
          payload: Discard,
          success: Report,
          error: errors
        })
      )
    )
    .prefix(path)
    .annotateMerge(
      OpenApi.annotations({
        title: "Dead letters",
        description:
          "Reads, redrives and discards dead letters. With `Accept: text/event-stream`, redrive and discard answer with events: `progress`, then `report`, or `problem`."
      })
    )
