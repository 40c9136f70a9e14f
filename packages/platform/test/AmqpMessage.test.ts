// JSON by schemas of Effect 3: what is written, and that it is read as the same value.
import { AmqpConsumer, type AmqpError, AmqpMessage } from "@effect-amqp/platform"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, Option, Schema } from "effect"
import * as Application from "./support/application.ts"

const envelope = { exchange: "", routingKey: "json" }

const write = <A, I>(schema: Schema.Schema<A, I>, value: A) =>
  Effect.map(AmqpMessage.json(schema).encode(value, envelope), ({ content }) => String(content))

const read = <A, I>(schema: Schema.Schema<A, I>, content: string) =>
  AmqpMessage.json(schema).decode({ content: new TextEncoder().encode(content), properties: {} })

const refusal = <A, R>(effect: Effect.Effect<A, AmqpError.AmqpError, R>) =>
  Effect.map(Effect.flip(effect), ({ message, reason }) => [reason._tag, message])

const Text = Schema.UndefinedOr(Schema.String)

describe("AmqpMessage.json", () => {
  it.effect("writes what Effect 3's parseJson writes: a key that is undefined is left out", () =>
    Effect.gen(function* () {
      const check = Effect.fnUntraced(function* <A, I>(schema: Schema.Schema<A, I>, value: A, json: string) {
        assert.strictEqual(yield* write(schema, value), json)
        assert.strictEqual(Schema.encodeSync(Schema.parseJson(schema))(value), json)
        assert.deepStrictEqual(
          yield* read(schema, json),
          Schema.decodeSync(Schema.parseJson(schema))(json),
          `${json} as ${schema}`
        )
      })
      yield* check(Schema.Struct({ a: Schema.optional(Schema.String) }), { a: undefined }, "{}")
      yield* check(Schema.Struct({ a: Text, b: Schema.Null }), { a: undefined, b: null }, '{"b":null}')
      yield* check(Schema.Struct({ a: Schema.OptionFromUndefinedOr(Schema.String) }), { a: Option.none() }, "{}")
      yield* check(Schema.Struct({ a: Schema.NullishOr(Schema.String) }), { a: undefined }, "{}")
      yield* check(Schema.Array(Schema.Struct({ a: Text })), [{ a: undefined }, { a: "x" }], '[{},{"a":"x"}]')
      yield* check(Schema.Record({ key: Schema.String, value: Text }), { a: undefined, b: "x" }, '{"b":"x"}')
      yield* check(Schema.Unknown, { a: { b: undefined, c: [] } }, '{"a":{"c":[]}}')
      yield* check(Schema.Unknown, JSON.parse('{"__proto__":{"a":1}}'), '{"__proto__":{"a":1}}')
      yield* check(Schema.Unknown, { ...JSON.parse('{"__proto__":1}'), a: undefined }, '{"__proto__":1}')
    })
  )

  it.effect("writes a whole content of undefined as null, and reads it as undefined", () =>
    Effect.gen(function* () {
      const check = Effect.fnUntraced(function* <A, I>(schema: Schema.Schema<A, I>, value: A) {
        assert.strictEqual(yield* write(schema, value), "null")
        assert.deepStrictEqual(yield* read(schema, "null"), value)
      })
      yield* check(Schema.Undefined, undefined)
      yield* check(Schema.Void, undefined)
      yield* check(Text, undefined)
      yield* check(Schema.OptionFromUndefinedOr(Schema.String), Option.none())
      // A schema with a `null` of its own reads that.
      yield* check(Schema.NullOr(Schema.String), null)
      yield* check(Schema.NullishOr(Schema.String), null)
      const refused = yield* refusal(read(Schema.String, "null"))
      assert.strictEqual(refused[0], "DecodeFailed")
    })
  )

  it.effect("refuses what JSON does not have, by its path and without its value", () =>
    Effect.gen(function* () {
      const cyclic: Record<string, unknown> = {}
      cyclic["self"] = [cyclic]
      const values: ReadonlyArray<readonly [unknown, string]> = [
        [[1, undefined], "undefined at $[1]"],
        [{ "a b": [Number.NaN] }, 'NaN at $["a b"][0]'],
        [Infinity, "Infinity at $"],
        [{ a: 1n }, "a bigint at $.a"],
        [{ a: new Date(0) }, "an instance of Date at $.a"],
        [{ a: () => 1 }, "a function at $.a"],
        [cyclic, "one that contains itself at $.self[0]"]
      ]
      for (const [value, got] of values) {
        assert.deepStrictEqual(yield* refusal(write(Schema.Unknown, value)), [
          "InvalidArgument",
          `content: expected a value that matches its schema: expected a value that JSON has, got ${got}`
        ])
      }
      let deep: unknown = [undefined]
      for (let i = 0; i < 100_000; i++) deep = [deep]
      assert.strictEqual((yield* refusal(write(Schema.Unknown, deep)))[0], "InvalidArgument")
    })
  )

  it.effect("of what is no schema fails when it is used, not when a module is loaded", () =>
    Effect.gen(function* () {
      const expected = [
        "InvalidArgument",
        "AmqpMessage.json: schema: expected a Schema, got an object. Nothing was sent."
      ]
      for (const wrong of [{}, { ast: {} }, Schema.optional(Schema.String)]) {
        const json = AmqpMessage.json(wrong as unknown as Schema.Schema<number>)
        assert.deepStrictEqual(yield* refusal(json.encode(1, envelope)), expected)
        const delivery = { content: new Uint8Array(), properties: {} }
        assert.deepStrictEqual(yield* refusal(json.decode(delivery)), expected)
      }
    })
  )

  layer(Application.layer(), { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.effect("a consumer refuses what is no schema", () =>
      Effect.gen(function* () {
        for (const schema of [{}, { ast: {} }] as ReadonlyArray<unknown> as ReadonlyArray<typeof Schema.String>) {
          const options = { schema, size: 1, within: 1 }
          const expected = [
            "InvalidArgument",
            "basic.consume: schema: expected a Schema, got an object. Nothing was sent."
          ]
          const consume = AmqpConsumer.consume("q", () => Effect.void, { schema })
          assert.deepStrictEqual(yield* refusal(consume), expected)
          assert.deepStrictEqual(yield* refusal(AmqpConsumer.consumeBatch("q", () => Effect.void, options)), expected)
        }
      })
    )
  })
})
