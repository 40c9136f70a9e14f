/** The names of the headers that say why and where a message failed. */

export const failedPrefix = "x-failed-"

const name = (suffix: string) => `${failedPrefix}${suffix}`

export const version = name("version")
export const queue = name("queue")
/** Only where the queue is a stream. */
export const offset = name("offset")
export const exchange = name("exchange")
export const routingKey = name("routing-key")
export const error = name("error")
export const reason = name("reason")
export const attempt = name("attempt")
export const consumer = name("consumer")
export const host = name("host")
export const firstAt = name("first-at")
export const lastAt = name("last-at")
export const traceId = name("trace-id")
export const signature = name("signature")

const traceIdFormat = /^(?!0{32})[0-9a-f]{32}$/

/** Whether a text is a trace id as W3C Trace Context defines it. */
export const isTraceId = (text: string): boolean => traceIdFormat.test(text)
