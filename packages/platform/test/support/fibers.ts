// The fibers of both Effects that have not ended.
import * as Effect4 from "@effect-amqp/effect4/Effect"
import type * as Fiber4 from "@effect-amqp/effect4/Fiber"
import { Effect, Fiber } from "effect"

type Evaluate = (this: Fiber4.Fiber<unknown, unknown>, effect: unknown) => void

const prototypeOf4 = (): { evaluate: Evaluate } => Object.getPrototypeOf(Effect4.runFork(Effect4.void)) as never

/**
 * Watches the fibers of Effect 4 until the scope ends, because Effect 4 has no list of its own. The effect that it
 * returns counts the root fibers of Effect 3, and all fibers of Effect 4 that have run since, and says where those of
 * Effect 4 began: the first function of this repository, or of Effect if none is on the stack.
 */
export const watch = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => {
      const prototype = prototypeOf4()
      const { evaluate } = prototype
      const live = new Map<Fiber4.Fiber<unknown, unknown>, Error>()
      const seen = new WeakSet<object>()
      prototype.evaluate = function (effect) {
        if (!seen.has(this)) {
          seen.add(this)
          live.set(this, origin())
          this.addObserver(() => live.delete(this))
        }
        return evaluate.call(this, effect)
      }
      return { live, restore: () => (prototype.evaluate = evaluate) }
    }),
    ({ restore }) => Effect.sync(restore)
  ),
  ({ live }) =>
    Effect.map(Fiber.roots, (roots) => ({ effect3: roots.length, effect4: live.size, origins: origins(live.values()) }))
)

// V8 writes the text of a stack when it is read.
const origin = () => {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 16
  const error = new Error()
  Error.stackTraceLimit = stackTraceLimit
  return error
}

const origins = (errors: Iterable<Error>): Readonly<Record<string, number>> => {
  const counts: Record<string, number> = {}
  for (const { stack } of errors) {
    const frames = stack!.split("\n").slice(3)
    const own = frames.filter((frame) => /packages\/\w+\/src\//.test(frame))
    const name = (own.length === 0 ? frames : own)
      .slice(0, 2)
      .map((frame) => frame.replace(/^ *at /, "").replace(/\(.*packages\//, "("))
      .join(" < ")
    counts[name] = (counts[name] ?? 0) + 1
  }
  return counts
}
