/** One trace: spans of Effect 3 as Effect 4 has them, and back. */
import * as Context4 from "@effect-amqp/effect4/Context"
import type * as Exit4 from "@effect-amqp/effect4/Exit"
import * as Option4 from "@effect-amqp/effect4/Option"
import * as Tracer4 from "@effect-amqp/effect4/Tracer"
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import { toExit3, toExit4 } from "./exits.ts"

/** The tracer that an application has which provides none. It exports nothing, so no span is opened for it. */
const native = Context.get(DefaultServices.liveServices, Tracer.Tracer)

const unpropagated = Context4.make(Tracer4.DisablePropagation, true) as Context4.Context<never>

/** A span of which nothing is a child stays so. */
const annotationsOf = ({ context }: Tracer.AnySpan): Context4.Context<never> =>
  Context.get(context, Tracer.DisablePropagation) ? unpropagated : Context4.empty()

/** A span of Effect 3's tracer, in Effect 4. */
class SpanOf3 implements Tracer4.Span {
  readonly _tag = "Span"
  readonly annotations: Context4.Context<never>
  readonly span: Tracer.Span

  constructor(span: Tracer.Span) {
    this.span = span
    this.annotations = annotationsOf(span)
  }

  get name(): string {
    return this.span.name
  }

  get spanId(): string {
    return this.span.spanId
  }

  get traceId(): string {
    return this.span.traceId
  }

  get parent(): Option4.Option<Tracer4.AnySpan> {
    return Option.isSome(this.span.parent) ? Option4.some(toSpan4(this.span.parent.value)) : Option4.none()
  }

  get status(): Tracer4.SpanStatus {
    const { status } = this.span
    return status._tag === "Started" ? status : { ...status, exit: toExit4(status.exit) }
  }

  get attributes(): ReadonlyMap<string, unknown> {
    return this.span.attributes
  }

  get links(): ReadonlyArray<Tracer4.SpanLink> {
    return this.span.links.map(toLink4)
  }

  get sampled(): boolean {
    return this.span.sampled
  }

  get kind(): Tracer4.SpanKind {
    return this.span.kind
  }

  end(endTime: bigint, exit: Exit4.Exit<unknown, unknown>): void {
    this.span.end(endTime, toExit3(exit, undefined))
  }

  attribute(key: string, value: unknown): void {
    this.span.attribute(key, value)
  }

  event(name: string, startTime: bigint, attributes?: Record<string, unknown>): void {
    this.span.event(name, startTime, attributes)
  }

  addLinks(links: ReadonlyArray<Tracer4.SpanLink>): void {
    this.span.addLinks(links.map(toLink3))
  }
}

const spans = new WeakMap<Tracer.AnySpan, Tracer4.AnySpan>()

export const toSpan4 = (span: Tracer.AnySpan): Tracer4.AnySpan => {
  let known = spans.get(span)
  if (known === undefined) {
    known =
      span._tag === "Span"
        ? new SpanOf3(span)
        : Tracer4.externalSpan({
            spanId: span.spanId,
            traceId: span.traceId,
            sampled: span.sampled,
            annotations: annotationsOf(span)
          })
    spans.set(span, known)
  }
  return known
}

export const toSpan3 = (span: Tracer4.AnySpan): Tracer.AnySpan =>
  span instanceof SpanOf3
    ? span.span
    : Tracer.externalSpan({ spanId: span.spanId, traceId: span.traceId, sampled: span.sampled })

const toLink3 = ({ attributes, span }: Tracer4.SpanLink): Tracer.SpanLink => ({
  _tag: "SpanLink",
  attributes,
  span: toSpan3(span)
})

export const toLink4 = ({ attributes, span }: Tracer.SpanLink): Tracer4.SpanLink => ({
  attributes,
  span: toSpan4(span)
})

const tracers = new WeakMap<Tracer.Tracer, Tracer4.Tracer>()

/** The tracer of Effect 3 for Effect 4; `undefined` for the one that exports nothing. */
export const toTracer4 = (tracer: Tracer.Tracer): Tracer4.Tracer | undefined => {
  if (tracer === native) return undefined
  let known = tracers.get(tracer)
  if (known === undefined) {
    known = Tracer4.make({
      span: ({ kind, links, name, parent, root, startTime }) =>
        new SpanOf3(
          tracer.span(
            name,
            Option4.isSome(parent) ? Option.some(toSpan3(parent.value)) : Option.none(),
            Context.empty(),
            links.map(toLink3),
            startTime,
            kind,
            { root }
          )
        )
    })
    tracers.set(tracer, known)
  }
  return known
}
