/** The headers of the copy that is published when a stream's consumer could not handle a message. */
import type { FieldValue, Headers } from "../../model/message.ts"
import { copyReceivedBytes } from "../wire/receivedBytes.ts"
import { offsetName } from "../wire/streams.ts"
import { boundedFailure, type Failure } from "../message/failure.ts"
import { failedPrefix as prefix } from "./failedNames.ts"
import type { StreamDelivery } from "./streamDelivery.ts"

// Excluded are the headers that would make the broker send more copies, the stream's offset, and the headers of an
// earlier copy.
const isExcluded = (name: string): boolean =>
  name === "CC" || name === "BCC" || name === offsetName || name.startsWith(prefix)

/** @param failure `undefined` if there is no room for it in the frame */
export const failedHeaders = (delivery: StreamDelivery, failure: Failure | undefined): Headers => {
  const { exchange, offset, properties, queue, routingKey } = delivery
  const headers: Record<string, FieldValue | undefined> = Object.create(null)
  for (const name of Object.keys(properties.headers)) {
    if (!isExcluded(name)) headers[name] = properties.headers[name]
  }
  headers[`${prefix}queue`] = queue
  headers[`${prefix}offset`] = offset
  headers[`${prefix}exchange`] = exchange.toWellFormed()
  headers[`${prefix}routing-key`] = routingKey.toWellFormed()
  if (failure !== undefined) {
    const { message, tag } = boundedFailure(failure)
    headers[`${prefix}error`] = tag
    headers[`${prefix}reason`] = message
  }
  copyReceivedBytes(headers, properties.headers)
  return headers
}
