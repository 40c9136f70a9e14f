/** The methods that the library reads itself: it reads what amqplib reads, or refuses. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect } from "effect"
import { createRequire } from "node:module"
import { isDeepStrictEqual } from "node:util"
import { ProtocolViolation } from "../src/internal/driver/errors.ts"
import { DeliverReader, readBit, readCancel, readClose, readGetOk, readReturn } from "../src/internal/driver/methods.ts"
import {
  basicCancel,
  basicDeliver,
  basicGetOk,
  basicReturn,
  channelClose,
  channelFlow
} from "../src/internal/wire/protocol.ts"
import { holds, int } from "./support/arbitrary.ts"
import { encodeMethod } from "../src/testing/internal/memory/codec/methodCodec.ts"

const fromAmqplibFolder = createRequire(createRequire(import.meta.url).resolve("amqplib"))
const defs = fromAmqplibFolder("./lib/defs") as {
  readonly decode: (id: number, fields: Buffer) => Readonly<Record<string, unknown>>
}

type Fields = Readonly<Record<string, unknown>>
type Read = (id: number, bytes: Buffer, start: number, end: number) => Fields

const deliver = new DeliverReader()

/** What is read of each method, with amqplib's names for its fields. */
const readers: Record<string, readonly [id: number, read: Read]> = {
  "basic.deliver": [
    basicDeliver,
    (...at) => {
      const { consumerTag, deliveryTag, exchange, redelivered, routingKey } = deliver.read(...at)
      return { consumerTag, deliveryTag, redelivered, exchange, routingKey }
    }
  ],
  "basic.get-ok": [
    basicGetOk,
    (...at) => {
      const { deliveryTag, exchange, messageCount, redelivered, routingKey } = readGetOk(...at)
      return { deliveryTag, redelivered, exchange, routingKey, messageCount }
    }
  ],
  "basic.return": [
    basicReturn,
    (...at) => {
      const { exchange, replyCode, replyText, routingKey } = readReturn(...at)
      return { replyCode, replyText, exchange, routingKey }
    }
  ],
  "basic.cancel": [basicCancel, (...at) => readCancel(...at)],
  "channel.flow": [channelFlow, (...at) => ({ active: readBit(...at) })],
  "channel.close": [
    channelClose,
    (...at) => {
      const { classId, code, message, methodId } = readClose(...at)
      return { replyCode: code, replyText: message, classId, methodId }
    }
  ]
}

/** Reads the fields surrounded by other bytes, as they come from a socket. */
const reading = (id: number, read: Read, fields: Buffer): Fields | "refused" => {
  const bytes = Buffer.concat([Buffer.alloc(10, 0xee), fields, Buffer.alloc(300, 0xee)])
  try {
    return read(id, bytes, 6, 10 + fields.length)
  } catch (cause) {
    assert.instanceOf(cause, ProtocolViolation)
    assert.strictEqual(cause.code, 501)
    return "refused"
  }
}

const byAmqplib = (id: number, fields: Buffer): Fields | "refused" => {
  try {
    return defs.decode(id, fields)
  } catch {
    return "refused"
  }
}

// Bytes that are not UTF-8 are read better than by amqplib: see `fieldTable.test.ts`.
const alike = (fields: Fields) =>
  Object.fromEntries(
    Object.entries(fields)
      .filter(([name]) => name !== "nowait")
      .map(([name, value]) => [
        name,
        typeof value === "string" ? value.toWellFormed().replace(/\uFFFD+/g, "\uFFFD") : value
      ])
  )

const isSame = (id: number, read: Read, fields: Buffer): boolean => {
  const [ours, theirs] = [reading(id, read, fields), byAmqplib(id, fields)]
  // The library refuses fields that are cut short, or followed by more bytes. amqplib accepts some of them.
  if (ours === "refused") return true
  // A tag that no number can represent.
  if (theirs === "refused") return Number(ours["deliveryTag"]) > Number.MAX_SAFE_INTEGER
  return isDeepStrictEqual(alike(ours), alike(theirs))
}

const tags = [0, 1, 255, 256, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 7, Number.MAX_SAFE_INTEGER]
const names = ["", "q", "orders.created", "grüße", "🐇", "x".repeat(255)]

/** The fields of methods with all tags and names, each in turn. */
const encoded = (method: keyof typeof readers): ReadonlyArray<Buffer> =>
  [...tags, ...tags].flatMap((deliveryTag, i) => {
    const name = names[i % names.length]!
    const bit = i % 2 === 0
    return [
      { consumerTag: name, exchange: "e", routingKey: "k", replyText: name },
      { consumerTag: "tag", exchange: name, routingKey: "k" },
      { consumerTag: "tag", exchange: "e", routingKey: name }
    ].map((texts) =>
      encodeMethod(
        method as "basic.deliver",
        {
          ...texts,
          deliveryTag,
          redelivered: bit,
          messageCount: i,
          replyCode: 312,
          classId: 50,
          methodId: 10,
          active: bit
        } as object
      ).subarray(4)
    )
  })

for (const [method, [id, read]] of Object.entries(readers)) {
  describe(method, () => {
    it("is read as amqplib reads it, also right after another one", () => {
      for (const fields of encoded(method)) {
        const ours = reading(id, read, fields)
        assert.notStrictEqual(ours, "refused")
        assert.deepStrictEqual(alike(ours as Fields), alike(byAmqplib(id, fields) as Fields))
      }
    })

    it("whose fields are cut short, or followed by more bytes, is refused", () => {
      for (const fields of encoded(method).slice(0, 6)) {
        for (let length = 0; length < fields.length; length++) {
          assert.strictEqual(reading(id, read, fields.subarray(0, length)), "refused", `${length} bytes`)
        }
        assert.strictEqual(reading(id, read, Buffer.concat([fields, Buffer.alloc(1)])), "refused")
      }
    })

    it.effect("of arbitrary bytes is read as amqplib reads it, or refused", () =>
      Effect.gen(function* () {
        yield* holds(Arbitrary.array(int(0, 255), { maxLength: 60 }), (bytes) => isSame(id, read, Buffer.from(bytes)), {
          runs: 2000,
          size: 60
        })
        const whole = encoded(method)
        yield* holds(
          Arbitrary.all([int(0, whole.length - 1), Arbitrary.array(Arbitrary.all([int(0, 30), int(0, 255)]))]),
          ([which, changes]) => {
            const fields = Buffer.from(whole[which]!)
            for (const [at, value] of changes) if (at < fields.length) fields[at] = value
            return isSame(id, read, fields)
          },
          { runs: 2000, size: 5 }
        )
      })
    )
  })
}
