import { assert, describe, it } from "@effect/vitest"
import { AmqpConfig } from "@effect-amqp/core"
import { Effect } from "effect"
import { sameAtEnd } from "../src/internal/message/copies.ts"

const delivery = (userId: string) => ({
  exchange: "e",
  routingKey: "k",
  content: new Uint8Array([1]),
  properties: { userId, headers: { kept: 1, CC: ["a"], BCC: ["b"], "x-delivery-count": 2, "x-acquired-count": 3 } }
})

describe("A copy of a delivery", () => {
  it.effect("keeps the userId only if it is the user of the connection: the broker refuses another one", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromUrl("amqp://worker:secret@127.0.0.1")
      assert.strictEqual(sameAtEnd("q", delivery("worker"), config).userId, "worker")
      assert.isUndefined(sameAtEnd("q", delivery("other"), config).userId)
    })
  )

  it.effect("leaves out further recipients and the counts of the queue", () =>
    Effect.gen(function* () {
      const config = yield* AmqpConfig.fromUrl("amqp://worker:secret@127.0.0.1")
      const { exchange, headers, routingKey } = sameAtEnd("q", delivery("worker"), config)
      assert.deepStrictEqual({ ...headers }, { kept: 1 })
      assert.deepStrictEqual([exchange, routingKey], ["", "q"])
    })
  )
})
