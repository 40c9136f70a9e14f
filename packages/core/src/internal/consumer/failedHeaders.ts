/** The headers of the copy that is published of a message which a stream's consumer could not handle. */
import type { FieldValue, Headers } from "../../model/message.ts"
import { deriveReceived } from "../wire/received.ts"
import { offsetName } from "../wire/streams.ts"
import type { Failure } from "../message/failure.ts"
import type { StreamDelivery } from "./streamDelivery.ts"

const prefix = "x-failed-"

// Longer ones are cut: headers have to fit into one frame.
const longestTag = 128
const longestReason = 1024

const cut = (text: string, longest: number): string =>
  // A surrogate pair may have been cut in two.
  (text.length > longest ? `${text.slice(0, longest - 1)}…` : text).toWellFormed()

// What would make the broker send copies of the copy, what it says of the stream, and what an earlier copy said.
const isLeftOut = (name: string): boolean =>
  name === "CC" || name === "BCC" || name === offsetName || name.startsWith(prefix)

/** `failure`: undefined when there is no room for it. */
export const failedHeaders = (delivery: StreamDelivery, failure: Failure | undefined): Headers => {
  const { exchange, offset, properties, queue, routingKey } = delivery
  const headers: Record<string, FieldValue | undefined> = Object.create(null)
  for (const name of Object.keys(properties.headers)) {
    if (!isLeftOut(name)) headers[name] = properties.headers[name]
  }
  headers[`${prefix}queue`] = queue
  headers[`${prefix}offset`] = offset
  headers[`${prefix}exchange`] = exchange.toWellFormed()
  headers[`${prefix}routing-key`] = routingKey.toWellFormed()
  if (failure !== undefined) {
    headers[`${prefix}error`] = cut(failure.tag, longestTag)
    headers[`${prefix}reason`] = cut(failure.message, longestReason)
  }
  deriveReceived(headers, properties.headers)
  return headers
}
