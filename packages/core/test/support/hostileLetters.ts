/** Headers of dead letters as an attacker may write them: no consumer and no broker does. */
import type { AmqpMessage } from "@effect-amqp/core"

type Headers = NonNullable<AmqpMessage.Properties["headers"]>

const table = { a: { b: [{}, [1n], new Date(0)] } }

const values: ReadonlyArray<AmqpMessage.FieldValue> = [
  "",
  "text",
  -1,
  1.5,
  2n ** 62n,
  true,
  null,
  new Date(0),
  new Uint8Array([0xff]),
  [],
  [table],
  table
]

const failedNames = [
  "version",
  "queue",
  "offset",
  "exchange",
  "routing-key",
  "error",
  "reason",
  "attempt",
  "consumer",
  "host",
  "first-at",
  "last-at",
  "trace-id"
]

/** Headers of a consumer, with one value that none writes. */
const forged = failedNames.flatMap((name) =>
  values.map((value): Headers => ({
    "x-failed-queue": "nowhere",
    "x-failed-error": "Busy",
    [`x-failed-${name}`]: value,
    "x-failed-signature": Buffer.alloc(32).toString("base64url")
  }))
)

const deaths: ReadonlyArray<Headers> = [
  ...values.map((value) => ({ "x-death": value })),
  ...values.map((value) => ({ "x-death": [value, { queue: "nowhere" }] })),
  ...["queue", "reason", "time", "exchange", "routing-keys", "count"].flatMap((name) =>
    values.map((value) => ({ "x-death": [{ queue: "nowhere", [name]: value }] }))
  ),
  {
    "x-death": Array.from({ length: 1500 }, (_, i) => ({ queue: `q${i}`, time: new Date(i * 1000), reason: "expired" }))
  }
]

const others: ReadonlyArray<Headers> = values.flatMap((value) =>
  ["x-redriven", "x-redriven-run", "x-retry-error", "traceparent", "x-delivery-count", "x-acquired-count", "CC"].map(
    (name) => ({
      [name]: name === "CC" && !Array.isArray(value) ? ["nowhere"] : name === "CC" ? [] : value
    })
  )
)

/** The headers of one dead letter each. None of them names a queue that exists. */
export const hostileHeaders: ReadonlyArray<Headers> = [...forged, ...deaths, ...others]
