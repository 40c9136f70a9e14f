/** The exchanges and queues of a topology. */
import type { AmqpError, AmqpPool, AmqpTopology } from "@effect-amqp/core"
import { compare, type Compared } from "../topology/compare.ts"
import { detailOf } from "../topology/diff.ts"
import * as Effect from "effect/Effect"
import * as Text from "../output/text.ts"
import { type Check, error, ok, warning } from "./Check.ts"

/** The queues that get dead letters, as far as the topology shows it: nothing consumes them. */
const deadLetterQueues = ({ bindings, queues }: AmqpTopology.AmqpTopology): ReadonlySet<string> => {
  const exchanges = new Set<string>()
  const found = new Set<string>()
  for (const { options } of queues) {
    const { deadLetterExchange, deadLetterRoutingKey } = options
    if (deadLetterExchange === "" && deadLetterRoutingKey !== undefined) found.add(deadLetterRoutingKey)
    else if (deadLetterExchange !== undefined) exchanges.add(deadLetterExchange)
  }
  for (const { destination, destinationType, source } of bindings) {
    if (destinationType === "queue" && exchanges.has(source)) found.add(destination)
  }
  return found
}

const plural = (count: number, noun: string) => `${count} ${noun}${count === 1 ? "" : "s"}`

const checkOf = (each: Compared, isDeadLetterQueue: boolean): Check => {
  const { consumers = 0, kind, messages = 0, name, status } = each
  const subject = `${kind} ${JSON.stringify(name)}`
  switch (status) {
    case "missing":
      return error(
        "topology",
        subject,
        "does not exist",
        each.external ? "Its owner declares it." : "effect-amqp topology apply FILE declares it."
      )
    case "different":
      return error(
        "topology",
        subject,
        `has other properties: ${detailOf(each)}`,
        "Declare it as it is, or see effect-amqp topology apply --help for --recreate."
      )
    case "unsupported":
      return error("topology", subject, detailOf(each), "Change the declaration.")
    case "unknown":
      return warning(
        "topology",
        subject,
        `exists, not compared: ${detailOf(each)}`,
        "Use a user that may configure it."
      )
    case "equal": {
      if (each.message !== undefined) return ok("topology", subject, each.message)
      if (kind === "exchange") return ok("topology", subject, each.external ? "exists" : "as declared")
      const counts = `${plural(messages, "message")}, ${plural(consumers, "consumer")}`
      if (isDeadLetterQueue && messages > 0) {
        return warning(
          "topology",
          subject,
          `${plural(messages, "dead letter")}`,
          `effect-amqp peek ${Text.shellWord(name)} shows why; redrive brings them back.`
        )
      }
      if (messages > 0 && consumers === 0 && !isDeadLetterQueue) {
        return warning("topology", subject, `${counts}: nothing consumes it`, "Start its consumer.")
      }
      return ok("topology", subject, `${each.external ? "exists" : "as declared"}, ${counts}`)
    }
  }
}

export const queues = (
  topology: AmqpTopology.AmqpTopology
): Effect.Effect<ReadonlyArray<Check>, AmqpError.AmqpError, AmqpPool.AmqpPool> =>
  Effect.map(compare(topology), (compared) => {
    const deadLetters = deadLetterQueues(topology)
    return compared.map((each) => checkOf(each, each.kind === "queue" && deadLetters.has(each.name)))
  })
