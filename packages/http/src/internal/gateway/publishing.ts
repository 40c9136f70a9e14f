/** `POST /publish/{exchange}/{routingKey}`: one message, or a batch as NDJSON. */
import { type AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { type Refusal, problemOf, refusalOf, refuse } from "./refusals.ts"
import type { GatewayPublisher } from "./gatewayPublisher.ts"
import { isRefused, propertiesOf, readLine, type Rules } from "./messages.ts"
import { type Bounds, failWith, type Guard, notFound, pathBelow, readBody, type RouteEffect } from "./requests.ts"

/** The default exchange, whose name is empty, as RabbitMQ's own HTTP API writes it. */
const defaultExchange = "amq.default"

const isBatch = (contentType: string | undefined) =>
  contentType?.split(";", 1)[0]!.trim().toLowerCase() === "application/x-ndjson"

const confirmed = { status: "confirmed" }

const lineOf = (result: object) => `${JSON.stringify(result)}\n`

const confirmedLine = lineOf(confirmed)

const refusedLine = (refusal: Refusal) => lineOf({ status: "refused", problem: problemOf(refusal) })

const newline = 0x0a

/** Whether a batch has more than `most` lines. The last line may lack its newline. */
const hasMoreLines = (body: Uint8Array, most: number): boolean => {
  let lines = 0
  for (let at = 0; at < body.length; lines++) {
    if (lines === most) return true
    const end = body.indexOf(newline, at)
    at = end < 0 ? body.length : end + 1
  }
  return false
}

/** Maximum size of a part of a batch, in lines and in bytes. Other fibers run between two parts. */
const partLines = 500
const partBytes = 256 * 1024

/** A line of a part: its result as text, or the message as long as the result is unknown. */
type Line = string | AmqpMessage.Message

interface Part {
  readonly lines: Array<Line>
  /** Where the next part begins. */
  readonly next: number
}

const readPart = (body: Uint8Array, from: number, to: AmqpMessage.Envelope, rules: Rules): Part => {
  const decoder = new TextDecoder()
  const lines: Array<Line> = []
  let at = from
  while (at < body.length && lines.length < partLines && at - from < partBytes) {
    const end = body.indexOf(newline, at)
    const text = decoder.decode(body.subarray(at, end < 0 ? body.length : end))
    at = end < 0 ? body.length : end + 1
    if (text.trim() === "") continue
    const message = readLine(text, to, rules)
    lines.push(isRefused(message) ? refusedLine(message) : message)
  }
  return { lines, next: at }
}

type Options = { readonly mandatory: boolean }

/** Publishes the messages of a part in order, and replaces each message with its result. */
const publishPart = Effect.fnUntraced(function* (lines: Array<Line>, publishing: GatewayPublisher, options: Options) {
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i]!
    if (typeof line === "string") continue
    if (!publishing.hasAccepted(line)) {
      const result = yield* Effect.result(publishing.publish(line, options))
      lines[i] = Result.isSuccess(result) ? confirmedLine : refusedLine(refusalOf(result.failure))
      continue
    }
    // The longest run of messages that may share channels is published as one sequence.
    const positions: Array<number> = []
    const messages: Array<AmqpMessage.Message> = []
    for (; i < lines.length; i++) {
      const message = lines[i]!
      if (typeof message === "string") continue
      if (!publishing.hasAccepted(message)) break
      positions.push(i)
      messages.push(message)
    }
    i--
    let reported = 0
    yield* Stream.runForEach(
      AmqpPublisher.publishAll(messages, { ...options, failures: "values" }),
      ({ message, result }) =>
        Effect.sync(() => {
          const failure = Result.isFailure(result) ? result.failure : undefined
          publishing.recordOutcome(message, failure)
          lines[positions[reported++]!] = failure === undefined ? confirmedLine : refusedLine(refusalOf(failure))
        })
    )
  }
  return lines.join("")
})

/**
 * The results of a batch, in the order of its lines, which is also the order of the messages in a queue. A part is read
 * after the client has taken the results of the one before it, so only the body and one part are in memory.
 */
const publishBatch = (
  body: Uint8Array,
  to: AmqpMessage.Envelope,
  options: Options,
  publishing: GatewayPublisher,
  rules: Rules
) =>
  Stream.unfold(
    0,
    Effect.fnUntraced(function* (from: number) {
      if (from === body.length) return undefined
      if (from > 0) yield* Effect.yieldNow
      const { lines, next } = readPart(body, from, to, rules)
      return [yield* publishPart(lines, publishing, options), next] as const
    })
  )

export const route: (
  path: string,
  bounds: Bounds,
  guard: Guard,
  rules: Rules,
  publishing: GatewayPublisher
) => RouteEffect = Effect.fnUntraced(function* (path, bounds, guard, rules, publishing) {
  const request = yield* HttpServerRequest.HttpServerRequest
  const [named = "", routingKey = "", ...more] = yield* pathBelow(request, path)
  if (named === "" || more.length > 0) return yield* notFound
  const exchange = named === defaultExchange ? "" : named
  yield* guard(request, { action: "publish", exchange, routingKey })
  const mandatory = request.headers["amqp-mandatory"] ?? "true"
  if (mandatory !== "true" && mandatory !== "false")
    return yield* failWith(refuse(400, "amqp-mandatory: expected true or false."))
  const options = { mandatory: mandatory === "true" }
  if (isBatch(request.headers["content-type"])) {
    const body = yield* readBody(request, bounds)
    if (hasMoreLines(body, bounds.batchLines)) {
      return yield* failWith(
        refuse(413, `The batch has more than ${bounds.batchLines} lines. Nothing was published; send smaller batches.`)
      )
    }
    const publisher = yield* AmqpPublisher.AmqpPublisher
    const results = publishBatch(body, { exchange, routingKey }, options, publishing, rules)
    return HttpServerResponse.stream(
      results.pipe(Stream.provideService(AmqpPublisher.AmqpPublisher, publisher), Stream.encodeText),
      { contentType: "application/x-ndjson", headers: { "cache-control": "no-store" } }
    )
  }
  const properties = propertiesOf(request.headers, rules)
  if (isRefused(properties)) return yield* failWith(properties)
  const content = yield* readBody(request, bounds)
  yield* publishing.publish({ exchange, routingKey, ...properties, content }, options)
  return HttpServerResponse.jsonUnsafe(confirmed, { headers: { "cache-control": "no-store" } })
})
