/** Random programs for a broker: what a client declares, publishes, consumes, settles and waits for. */
import type { Random } from "../random.ts"

/** Arguments by name, as they are sent. */
export type Arguments = Readonly<Record<string, string | number | boolean>>

export type Step =
  | {
      readonly do: "declareQueue"
      readonly queue: number
      readonly durable: boolean
      readonly exclusive: boolean
      readonly autoDelete: boolean
      readonly args: Arguments
    }
  | {
      readonly do: "declareExchange"
      readonly exchange: number
      readonly type: string
      readonly autoDelete: boolean
      readonly internal: boolean
      readonly alternate: number | undefined
    }
  | {
      readonly do: "bindQueue" | "unbindQueue" | "bindExchange"
      readonly to: number
      readonly exchange: number
      readonly key: string
      readonly args: Arguments
    }
  | {
      readonly do: "publish"
      /** `undefined`: the default exchange, with the queue's name as the key. */
      readonly exchange: number | undefined
      readonly key: string
      readonly queue: number
      readonly mandatory: boolean
      readonly persistent: boolean
      readonly expiration: number | undefined
      readonly headers: Arguments
      readonly copies: number
    }
  | {
      readonly do: "consume"
      readonly queue: number
      readonly prefetch: number
      readonly noAck: boolean
      readonly exclusive: boolean
      readonly args: Arguments
    }
  | { readonly do: "cancel"; readonly index: number }
  | { readonly do: "get"; readonly queue: number; readonly noAck: boolean }
  | {
      readonly do: "settle"
      readonly how: "ack" | "nack" | "reject"
      readonly index: number
      readonly multiple: boolean
      readonly requeue: boolean
    }
  | { readonly do: "unknownTag" | "recover" | "closeChannel" | "cut" | "wait" }
  | { readonly do: "purge"; readonly queue: number }
  | { readonly do: "deleteQueue"; readonly queue: number; readonly ifUnused: boolean; readonly ifEmpty: boolean }
  | { readonly do: "deleteExchange"; readonly exchange: number; readonly ifUnused: boolean }

export type Program = ReadonlyArray<Step>

export const queues = 4
export const exchanges = 3

/** A time to live that passes only in a step `wait`, and how long that waits, in milliseconds. */
export const ttl = 15_000
export const waiting = 18_000

const keys = ["", "a", "b", "a.b", "a.b.c", "b.c"]
const patterns = [...keys, "#", "*", "a.*", "a.#", "#.c", "*.b.#"]

/** `weights` as pairs of a value and how often it is chosen. */
const weighted = <A>(random: Random, weights: ReadonlyArray<readonly [weight: number, value: A]>): A => {
  let left = random.below(weights.reduce((sum, [weight]) => sum + weight, 0))
  for (const [weight, value] of weights) {
    left -= weight
    if (left < 0) return value
  }
  throw new Error("unreachable")
}

const chance = (random: Random, percent: number): boolean => random.below(100) < percent

const queueArguments = (random: Random, isQuorum: boolean): Arguments => {
  const args: Record<string, string | number | boolean> = {}
  if (isQuorum) args["x-queue-type"] = "quorum"
  else if (chance(random, 10)) args["x-queue-type"] = "classic"
  if (chance(random, 15)) args["x-message-ttl"] = chance(random, 20) ? 0 : ttl
  if (chance(random, 8)) args["x-expires"] = ttl
  if (chance(random, 25)) {
    // A full quorum queue drops what a consumer of it would take a moment later.
    args["x-max-length"] = isQuorum ? random.between(1, 3) : random.below(4)
    if (chance(random, 60)) args["x-overflow"] = random.one(["drop-head", "reject-publish", "reject-publish-dlx"])
  }
  if (chance(random, 5)) args["x-max-length-bytes"] = 10 * random.below(4)
  if (chance(random, 40)) {
    args["x-dead-letter-exchange"] = random.one(["", "x0", "x1"])
    if (chance(random, 70)) args["x-dead-letter-routing-key"] = random.one(["q0", "q1", "q2", "q3", "a", "a.b"])
  } else if (chance(random, 3)) args["x-dead-letter-routing-key"] = "a"
  if (chance(random, 8)) args["x-single-active-consumer"] = true
  if (isQuorum && chance(random, 40)) args["x-delivery-limit"] = random.one([0, 1, 2, -1])
  if (isQuorum && chance(random, 15)) args["x-consumer-timeout"] = ttl
  if (chance(random, 3)) args["x-message-ttl"] = random.one([-1, "1000", true])
  if (chance(random, 2)) args["x-queue-type"] = random.one(["unknown", 3])
  if (chance(random, 2)) args[isQuorum ? "x-queue-mode" : "x-delivery-limit"] = isQuorum ? "lazy" : 3
  return args
}

const declareQueue = (random: Random): Step => {
  const isQuorum = chance(random, 35)
  const exclusive = chance(random, isQuorum ? 3 : 10)
  return {
    do: "declareQueue",
    queue: random.below(queues),
    durable: exclusive || chance(random, 97),
    exclusive,
    autoDelete: chance(random, isQuorum ? 3 : 15),
    args: queueArguments(random, isQuorum)
  }
}

const headersOf = (random: Random): Arguments => {
  const headers: Record<string, string | number | boolean> = {}
  if (chance(random, 30)) headers["h"] = random.one([1, 2, "1"])
  if (chance(random, 20)) headers["k"] = random.one(["v", "w"])
  return headers
}

const bindingArguments = (random: Random): Arguments => {
  if (chance(random, 60)) return {}
  const match: Arguments = chance(random, 70)
    ? { "x-match": random.one(["all", "any", "all-with-x", "any-with-x"]) }
    : chance(random, 5)
      ? { "x-match": "some" }
      : {}
  return { ...match, ...headersOf(random) }
}

const binding = (random: Random, kind: "bindQueue" | "unbindQueue" | "bindExchange"): Step => ({
  do: kind,
  to: random.below(kind === "bindExchange" ? exchanges : queues),
  exchange: random.below(exchanges),
  key: random.one(patterns),
  args: bindingArguments(random)
})

const publish = (random: Random): Step => ({
  do: "publish",
  exchange: chance(random, 45) ? undefined : random.below(exchanges),
  key: random.one(keys),
  queue: random.below(queues),
  mandatory: chance(random, 25),
  persistent: chance(random, 80),
  expiration: chance(random, 12) ? random.one([0, ttl]) : undefined,
  headers: headersOf(random),
  copies: random.between(1, 3)
})

const step = (random: Random): Step =>
  weighted<() => Step>(random, [
    [16, () => declareQueue(random)],
    [
      6,
      () => ({
        do: "declareExchange",
        exchange: random.below(exchanges),
        type: random.one(["direct", "fanout", "topic", "headers"]),
        autoDelete: chance(random, 10),
        internal: chance(random, 5),
        alternate: chance(random, 20) ? random.below(exchanges) : undefined
      })
    ],
    [10, () => binding(random, "bindQueue")],
    [2, () => binding(random, "unbindQueue")],
    [3, () => binding(random, "bindExchange")],
    [28, () => publish(random)],
    [
      10,
      () => ({
        do: "consume",
        queue: random.below(queues),
        prefetch: random.below(4),
        noAck: chance(random, 15),
        exclusive: chance(random, 8),
        args: chance(random, 4) ? { "x-consumer-timeout": ttl } : {}
      })
    ],
    [3, () => ({ do: "cancel", index: random.below(4) })],
    [8, () => ({ do: "get", queue: random.below(queues), noAck: chance(random, 20) })],
    [
      20,
      () => ({
        do: "settle",
        how: random.one(["ack", "nack", "reject"]),
        index: random.below(5),
        multiple: chance(random, 30),
        requeue: chance(random, 50)
      })
    ],
    [1, () => ({ do: "unknownTag" })],
    [2, () => ({ do: "recover" })],
    [2, () => ({ do: "closeChannel" })],
    [2, () => ({ do: "cut" })],
    [1, () => ({ do: "wait" })],
    [2, () => ({ do: "purge", queue: random.below(queues) })],
    [
      3,
      () => ({
        do: "deleteQueue",
        queue: random.below(queues),
        ifUnused: chance(random, 20),
        ifEmpty: chance(random, 20)
      })
    ],
    [2, () => ({ do: "deleteExchange", exchange: random.below(exchanges), ifUnused: chance(random, 30) })]
  ])()

/** A program of this many steps. It begins with what most steps need. Without `waits`, no time to live passes. */
export const program = (random: Random, length: number, waits: boolean): Program =>
  [declareQueue(random), declareQueue(random), ...Array.from({ length }, () => step(random))].filter(
    (each) => waits || each.do !== "wait"
  )

export const shown = (steps: Program): string =>
  steps.map((each, index) => `${String(index).padStart(3)} ${JSON.stringify(each)}`).join("\n")
