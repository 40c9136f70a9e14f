/** Reads facts that RabbitMQ states only in a reply text: AMQP's codes and fields do not carry them. */

// Matches `number of channels opened for user 'u' has reached the maximum allowed user limit of (7)`, and `... on node
// 'n' ...`.
const channelLimit = /number of channels opened .* has reached the maximum allowed (?:user )?limit of \(?(\d+)/s

/**
 * Returns the limit that the broker names when it closes a connection because of one channel too many; `undefined`: the
 * text has another reason.
 */
export const channelLimitIn = (text: string): number | undefined => {
  const limit = channelLimit.exec(text)?.[1]
  return limit === undefined ? undefined : Number(limit)
}

/**
 * Whether the text is `vhost connection limit (10) is reached`, `user connection limit ...` or `node connection limit
 * ...`.
 */
export const isConnectionLimit = (text: string): boolean => /connection limit .*is reached/.test(text)

/** Whether a message exceeds the broker's own size limit. The broker then answers 406, not 311. */
export const isMessageSize = (text: string): boolean => /message size \d+ is larger than/.test(text)

/** Whether the text is `queue 'q' in vhost '/' in exclusive use`: another consumer has the queue for itself. */
export const isExclusiveUse = (text: string): boolean => text.includes("exclusive use")

/** Whether the text is `no queue 'q' in vhost '/'` or `no exchange 'e' in vhost '/'`, and not truncated. */
export const isMissingName = (text: string): boolean => /no (?:queue|exchange) '.*' in vhost '.*'$/s.test(text)

// RabbitMQ's texts for a refused declaration: `inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false'
// but current is 'true'`, or `none`, or `the value '10' of type 'byte'`; `invalid arg 'x-max-priority' for queue 'q'`.
// A reply text has at most 255 bytes and ends in "..." where it was truncated, so every later part may be missing.
const refusedArgument = /\b(inequivalent|invalid) (?:arg|property) '([^']*)' for ((?:queue|exchange) '.*)$/s
const bothValues = /^(.*) in vhost '.*': received (.*) but current is (.*)$/s
const printedValue = [/^the value '(.*)' of type '\w+'$/s, /^'(.*)'$/s]

// A policy can set these arguments on a queue or exchange that exists (https://www.rabbitmq.com/docs/policies).
const isPolicy =
  /^(?:x-(?:message-ttl|expires|max-length|max-length-bytes|overflow|dead-letter-exchange|dead-letter-routing-key|dead-letter-strategy|delivery-limit|queue-mode|max-age)|alternate-exchange)$/

/**
 * Returns which argument of a declaration differs from the existing queue or exchange, with both values and what to do
 * about it.
 */
export const differenceIn = (text: string, operation: string) => {
  const [, verdict, argument, rest = ""] = refusedArgument.exec(text) ?? []
  if (argument === undefined) return undefined
  if (verdict === "invalid") return { argument }
  const [, subject, ...values] = bothValues.exec(rest) ?? []
  const [received, current] = values.map((value) => {
    for (const form of printedValue) {
      const inside = form.exec(value)?.[1]
      if (inside !== undefined) return inside
    }
    return value
  })
  if (subject === undefined || received === undefined || current === undefined) return { argument }
  const policy =
    isPolicy.test(argument) && current === "none" ? `, or leave ${argument} out and set it by a policy` : ""
  return {
    argument,
    received,
    current,
    message:
      `${operation}: ${subject} exists with ${argument} ${current}, and is declared here with ${received}. ` +
      `Declare it with the existing value, or delete it first, which deletes its messages${policy}. The broker said: ${text}`
  }
}
