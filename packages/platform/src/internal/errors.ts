/** `AmqpError` on both sides of the border. */
import { AmqpError as Core } from "@effect-amqp/core"
import * as AmqpError from "../model/error.ts"

// Both ways are remembered, so that an error or a reason that crosses twice is the same one again.
const inEffect3 = new WeakMap<object, AmqpError.AmqpError>()
const inEffect4 = new WeakMap<object, Core.AmqpError>()
const reasonsIn3 = new WeakMap<object, AmqpError.AmqpErrorReason>()
const reasonsIn4 = new WeakMap<object, Core.AmqpErrorReason>()

const ownMembers = new Set<string>(["_tag", "severity", "isRetryable", "message", "cause", "name", "stack"])

const fieldsOf = (reason: object, cause: (cause: unknown) => unknown): Record<string, unknown> => {
  const { message, cause: behind } = reason as { readonly message: string; readonly cause?: unknown }
  const fields: Record<string, unknown> = { message }
  for (const [key, value] of Object.entries(reason)) {
    if (!ownMembers.has(key) && !key.startsWith("~") && value !== undefined) fields[key] = value
  }
  if (behind !== undefined) fields["cause"] = cause(behind)
  return fields
}

export const toReason3 = (reason: Core.AmqpErrorReason): AmqpError.AmqpErrorReason => {
  let known = reasonsIn3.get(reason)
  if (known === undefined) {
    const Class = AmqpError.reasons[reason._tag] as new (fields: never) => AmqpError.AmqpErrorReason
    known = new Class(fieldsOf(reason, toAny3) as never)
    reasonsIn3.set(reason, known)
    reasonsIn4.set(known, reason)
  }
  return known
}

const classes: Readonly<Record<Core.AmqpErrorReason["_tag"], new (fields: never) => Core.AmqpErrorReason>> = Core

const toReason4 = (reason: AmqpError.AmqpErrorReason): Core.AmqpErrorReason => {
  let known = reasonsIn4.get(reason)
  if (known === undefined) {
    const Class = classes[reason._tag]
    known = new Class(fieldsOf(reason, toAny4) as never)
    reasonsIn4.set(reason, known)
    reasonsIn3.set(known, reason)
  }
  return known
}

export const toError3 = (error: Core.AmqpError): AmqpError.AmqpError => {
  let known = inEffect3.get(error)
  if (known === undefined) {
    known = AmqpError.fromReason(toReason3(error.reason))
    inEffect3.set(error, known)
    inEffect4.set(known, error)
  }
  return known
}

export const toError4 = (error: AmqpError.AmqpError): Core.AmqpError => {
  let known = inEffect4.get(error)
  if (known === undefined) {
    known = Core.fromReason(toReason4(error.reason))
    inEffect4.set(error, known)
    inEffect3.set(known, error)
  }
  return known
}

// Errors are recognized by class and not by type id: an application may have another copy of the core, or of this
// package, whose errors are its own and may have reasons that are not known here.
const isReason4 = (error: unknown): error is Core.AmqpErrorReason =>
  Core.isAmqpErrorReason(error) && isInstance(classes[error._tag], error)

const isReason3 = (error: unknown): error is AmqpError.AmqpErrorReason =>
  AmqpError.isAmqpErrorReason(error) && isInstance(AmqpError.reasons[error._tag], error)

const isInstance = (Class: (abstract new (fields: never) => unknown) | undefined, error: object): boolean =>
  Class !== undefined && error instanceof Class

/** Any error or defect of Effect 4 as Effect 3 has it: only the library's own errors differ. */
export const toAny3 = (error: unknown): unknown =>
  error instanceof Core.AmqpError ? toError3(error) : isReason4(error) ? toReason3(error) : error

/** Any error or defect of Effect 3 as Effect 4 has it. */
export const toAny4 = (error: unknown): unknown =>
  error instanceof AmqpError.AmqpError ? toError4(error) : isReason3(error) ? toReason4(error) : error
