import { it } from "@effect/vitest"
import { describe, expect } from "vitest"
import { Effect } from "effect"
import { KnownQueues, typeOf } from "../src/internal/connection/knownQueues.ts"

const classic = { durable: true, exclusive: false, autoDelete: false, arguments: {} }

describe("The queues an application has declared", () => {
  it.effect("are known until they are deleted, with the arguments of the last declaration", () =>
    Effect.sync(() => {
      const queues = new KnownQueues()
      queues.declared("orders", classic)
      queues.declared("orders", { ...classic, arguments: { "x-queue-type": "quorum" } })
      expect(typeOf(queues.get("orders"))).toBe("quorum")
      queues.forget("orders")
      expect(queues.get("orders")).toBeUndefined()
      expect(typeOf(queues.get("orders"))).toBeUndefined()
    })
  )

  it.effect("are at most 10,000: the one that was declared longest ago is dropped", () =>
    Effect.sync(() => {
      const queues = new KnownQueues()
      for (let i = 0; i < 10_000; i++) queues.declared(`q${i}`, classic)
      queues.declared("q0", classic)
      queues.declared("one more", classic)
      expect(queues.get("q0")).toBeDefined()
      expect(queues.get("q1")).toBeUndefined()
      expect(queues.get("one more")).toBeDefined()
    })
  )
})
