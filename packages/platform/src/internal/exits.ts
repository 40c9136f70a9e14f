/**
 * Exits and causes on both sides of the border.
 *
 * A cause of Effect 4 is a list of reasons, and one of Effect 3 a tree. A list becomes a chain of `sequential` causes,
 * and a tree becomes its leaves in order. A tree that has crossed keeps its shape: it is the same one when it returns.
 */
import * as Cause4 from "@effect-amqp/effect4/Cause"
import * as Exit4 from "@effect-amqp/effect4/Exit"
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import { toAny3, toAny4 } from "./errors.ts"

const trees = new WeakMap<Cause4.Cause<unknown>, Cause.Cause<unknown>>()

const leaf = (reason: Cause4.Reason<unknown>): Cause.Cause<unknown> => {
  switch (reason._tag) {
    case "Fail":
      return Cause.fail(toAny3(reason.error))
    case "Die":
      return Cause.die(toAny3(reason.defect))
    case "Interrupt":
      return Cause.interrupt(FiberId.none)
  }
}

export const toCause3 = (cause: Cause4.Cause<unknown>): Cause.Cause<unknown> => {
  const tree = trees.get(cause)
  if (tree !== undefined) return tree
  let all: Cause.Cause<unknown> | undefined
  for (const reason of cause.reasons) {
    const one = leaf(reason)
    all = all === undefined ? one : Cause.sequential(all, one)
  }
  return all ?? Cause.empty
}

/** The defects of a cause, without its failures and interruptions. */
export const defectsOf = (cause: Cause4.Cause<unknown>): Cause.Cause<never> | undefined => {
  const defects = cause.reasons.filter((reason) => reason._tag === "Die")
  return defects.length === 0 ? undefined : (toCause3(Cause4.fromReasons(defects)) as Cause.Cause<never>)
}

export const toExit3 = <A, B>(exit: Exit4.Exit<A, unknown>, map: ((value: A) => B) | undefined): Exit.Exit<B, never> =>
  exit._tag === "Success"
    ? Exit.succeed(map === undefined ? (exit.value as never) : map(exit.value))
    : (Exit.failCause(toCause3(exit.cause)) as Exit.Exit<never, never>)

/** A cause of a handler. `error` says how its failures cross: those that only return to the application stay as they are. */
export const toCause4 = (cause: Cause.Cause<unknown>, error: (error: unknown) => unknown): Cause4.Cause<unknown> => {
  const reasons: Array<Cause4.Reason<unknown>> = []
  // Without recursion: a cause may be as deep as it is long.
  const rest = [cause]
  for (let each = rest.pop(); each !== undefined; each = rest.pop()) {
    switch (each._tag) {
      case "Empty":
        break
      case "Fail":
        reasons.push(Cause4.makeFailReason(error(each.error)))
        break
      case "Die":
        reasons.push(Cause4.makeDieReason(toAny4(each.defect)))
        break
      case "Interrupt":
        reasons.push(Cause4.makeInterruptReason())
        break
      default:
        rest.push(each.right, each.left)
    }
  }
  const flat = Cause4.fromReasons(reasons)
  if (reasons.length > 1) trees.set(flat, cause)
  return flat
}

const keep = (error: unknown): unknown => error

export const toExit4 = <A>(
  exit: Exit.Exit<A, unknown>,
  error: (error: unknown) => unknown = keep
): Exit4.Exit<A, never> =>
  Exit.isSuccess(exit)
    ? Exit4.succeed(exit.value)
    : (Exit4.failCause(toCause4(exit.cause, error)) as Exit4.Exit<never, never>)
