/** One AMQP error per reason, with the secret in every field. No client may get any of it. */
import { AmqpError } from "@effect-amqp/core"

export const secret = "amqp://alice:s3cret@rabbit-7.internal:5672/shop refused queue 'orders.eu'"

/** The parts of the secret, which no client may get either. */
export const secretParts: ReadonlyArray<string> = ["alice", "s3cret", "rabbit-7", "5672", "shop", "orders.eu"]

const details = {
  message: secret,
  operation: secret,
  cause: new Error(secret),
  issues: [],
  argument: secret,
  channelMax: 7,
  sent: true,
  replyCode: 312,
  replyText: secret,
  exchange: secret,
  routingKey: secret,
  queue: secret,
  consumerTag: secret,
  offset: 7
}

export const errors: ReadonlyArray<AmqpError.AmqpError> = AmqpError.AmqpErrorReason.members.map((Reason) =>
  AmqpError.fromReason(new Reason(details))
)
