/** The dead-letter queues that an operation visits. */
import type { InvalidArgument } from "../../model/errorReason.ts"
import type { Part } from "../../model/topology.ts"
import { deadLetterQueues } from "../topology/deadLetters.ts"
import { make } from "../topology/values.ts"
import { checkQueue } from "../wire/declarations.ts"
import { describeType, invalidArgument } from "../wire/fieldTable.ts"

const operation = "AmqpDeadLetters.of"

export const queuesOf = (target: string | Part): ReadonlyArray<string> | InvalidArgument => {
  if (typeof target === "string") return checkQueue(operation, target) ?? [target]
  if (typeof target !== "object" || target === null) {
    return invalidArgument(operation, "queue", "the name of a queue, or a topology", describeType(target))
  }
  const queues = deadLetterQueues(make(target))
  return queues.length > 0
    ? queues
    : invalidArgument(
        operation,
        "topology",
        "a topology with a queue whose deadLetterExchange routes to a queue without one",
        "none"
      )
}
