/** A tracer that keeps its spans, and ways to find them. */
import { Amqp } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Cause, Effect, Option, References, type Scope, Tracer } from "effect"
import { configOf, type Overrides } from "./amqp.ts"

export interface Collected {
  /** The spans in the order of their beginning. */
  readonly spans: ReadonlyArray<Tracer.NativeSpan>
  readonly tracer: Tracer.Tracer
  /** The names of those that have ended, in the order of their beginning. */
  readonly names: () => ReadonlyArray<string>
  /** Waits until this many spans of this name have ended; at most 5 seconds. */
  readonly ended: (name: string, many?: number) => Effect.Effect<ReadonlyArray<Tracer.NativeSpan>>
  /** The only span of this name, once it has ended. */
  readonly one: (name: string) => Effect.Effect<Tracer.NativeSpan>
}

const hasEnded = ({ status }: Tracer.NativeSpan) => status._tag === "Ended"

export const collecting = (): Collected => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span(options) {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const names = () => spans.filter(hasEnded).map(({ name }) => name)
  const ended = (name: string, many = 1) =>
    Effect.gen(function* () {
      for (let i = 0; i < 5000; i++) {
        const found = spans.filter((span) => span.name === name && hasEnded(span))
        if (found.length >= many) return found
        yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 1)))
      }
      return yield* Effect.die(new Error(`${many} spans ${name} wanted, ended have ${names().join(", ")}`))
    })
  const one = (name: string) =>
    Effect.flatMap(ended(name), ([span, ...more]) =>
      span === undefined || more.length > 0
        ? Effect.die(new Error(`one span ${name} wanted, ended have ${names().join(", ")}`))
        : Effect.succeed(span)
    )
  return { spans, tracer, names, ended, one }
}

/** Runs a program with all of the library, on the broker of the test, and with a tracer. Nothing is logged. */
export const traced = <A, E, R>(program: (collected: Collected) => Effect.Effect<A, E, R>, overrides?: Overrides) =>
  Effect.gen(function* () {
    const { url } = yield* TestBroker.TestBroker
    const collected = collecting()
    return yield* (program(collected) as Effect.Effect<A, E, Amqp.Amqp | Scope.Scope>).pipe(
      Effect.scoped,
      Effect.provide(Amqp.fromConfig(configOf(url, overrides)), { local: true }),
      Effect.provideService(Tracer.Tracer, collected.tracer),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
  })

/** The id of a span's parent. */
export const parentOf = (span: Tracer.Span) => Option.getOrUndefined(span.parent)?.spanId

/** The ids in the format of `traceparent`. */
export const contextOf = ({ sampled, spanId, traceId }: Tracer.AnySpan) =>
  `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`

/** How a span has ended: "Success", or what failed. */
export const endOf = ({ status }: Tracer.Span): unknown =>
  status._tag === "Started"
    ? "Started"
    : status.exit._tag === "Success"
      ? "Success"
      : Cause.hasInterruptsOnly(status.exit.cause)
        ? "Interrupted"
        : Cause.squash(status.exit.cause)
