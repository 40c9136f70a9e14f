/** What copies of a delivery have in common, whatever they are published for. */
import type { AmqpConfig } from "../../model/config.ts"
import type { Delivery, FieldValue, Headers, Message, Properties } from "../../model/message.ts"
import { copyReceivedBytes } from "../wire/receivedBytes.ts"
import { fromDelivery } from "./forward.ts"

/** Whether a header is the queue's count of deliveries, which starts again for a copy. */
export const isDeliveryCount = (name: string): boolean => name === "x-delivery-count" || name === "x-acquired-count"

/** Whether a header makes the broker send further copies. */
export const isRecipients = (name: string): boolean => name === "CC" || name === "BCC"

/** The headers of a copy, without those that `isExcluded` names. */
export const headersWithout = (headers: Headers, isExcluded: (name: string) => boolean) => {
  const copied: Record<string, FieldValue | undefined> = Object.create(null)
  for (const name of Object.keys(headers)) if (!isExcluded(name)) copied[name] = headers[name]
  copyReceivedBytes(copied, headers)
  return copied
}

/** The `userId` of a copy: the broker refuses one that is not the user of the connection. */
export const ownUserId = (
  { credentials }: Pick<AmqpConfig, "credentials">,
  userId: string | undefined
): string | undefined => (credentials._tag === "Plain" && credentials.username === userId ? userId : undefined)

/** The same message at the end of its queue. Its count of returns starts again. */
export const sameAtEnd = (
  queue: string,
  delivery: Pick<Delivery, "content" | "exchange" | "routingKey"> & {
    readonly properties: Properties & { readonly headers: Headers }
  },
  config: Pick<AmqpConfig, "credentials">
): Message =>
  fromDelivery(delivery, {
    exchange: "",
    routingKey: queue,
    headers: headersWithout(delivery.properties.headers, (name) => isDeliveryCount(name) || isRecipients(name)),
    userId: ownUserId(config, delivery.properties.userId)
  })
