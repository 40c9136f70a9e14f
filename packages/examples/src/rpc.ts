/**
 * Request and reply: a procedure, its server and its client, in one program. They can be two programs: they share only
 * the procedure.
 *
 * Run it with `npm start -- rpc`. It sends three requests, and ends.
 */
import { AmqpRpc, AmqpTopology } from "@effect-amqp/core"
import { NodeRuntime } from "@effect/platform-node"
import { BigDecimal, Console, Effect, Schema } from "effect"
import * as ExampleBroker from "./support/ExampleBroker.ts"

// --- What both sides share ---------------------------------------------------------------------------------------------

class UnknownArticle extends Schema.TaggedError<UnknownArticle>()("UnknownArticle", { article: Schema.String }) {}

const PriceOf = AmqpRpc.make("price.of", {
  payload: { article: Schema.String, quantity: Schema.Int },
  success: Schema.BigDecimal,
  error: UnknownArticle
})

const requests = AmqpTopology.make(AmqpTopology.queue(PriceOf.queue))

// --- The server --------------------------------------------------------------------------------------------------------

const prices = new Map([
  ["tea", BigDecimal.fromStringUnsafe("3.95")],
  ["lamp", BigDecimal.fromStringUnsafe("49.95")]
])

const server = AmqpRpc.serve(
  PriceOf,
  Effect.fn("priceOf")(function* ({ article, quantity }) {
    const price = prices.get(article)
    if (price === undefined) return yield* new UnknownArticle({ article })
    return BigDecimal.multiply(price, BigDecimal.fromNumberUnsafe(quantity))
  })
)

// --- The client --------------------------------------------------------------------------------------------------------

const priceOf = AmqpRpc.client(PriceOf, { timeout: "5 seconds" })

const client = Effect.gen(function* () {
  const [tea, lamps] = yield* Effect.all(
    [priceOf({ article: "tea", quantity: 3 }), priceOf({ article: "lamp", quantity: 3 })],
    { concurrency: "unbounded" }
  )
  yield* Console.log(`Three teas cost ${BigDecimal.format(tea)}, three lamps ${BigDecimal.format(lamps)}.`)
  // This is the server's error, with its type.
  yield* priceOf({ article: "unicorn", quantity: 1 }).pipe(
    Effect.catchTag("UnknownArticle", ({ article }) => Console.log(`There is no price of "${article}".`))
  )
})

// --- The program -------------------------------------------------------------------------------------------------------

// The client ends the program, and so does the server if it fails.
Effect.raceFirst(client, server).pipe(
  Effect.provide(AmqpTopology.layer(requests)),
  // In an application, use AmqpLive.
  Effect.provide(ExampleBroker.layer),
  NodeRuntime.runMain
)
