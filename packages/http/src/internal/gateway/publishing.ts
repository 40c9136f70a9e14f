/** `POST /publish/{exchange}/{routingKey}`: one message, or a batch as NDJSON. */
import { type AmqpError, type AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { type Refusal, problemOf, refusalOf, refuse } from "./answers.ts"
import { isRefused, propertiesOf, readLine } from "./messages.ts"
import { type Bounds, failWith, type Guard, notFound, pathBelow, readBody, type Routed } from "./requests.ts"

/** How RabbitMQ's own HTTP API calls the exchange without a name. */
const defaultExchange = "amq.default"

const isBatch = (contentType: string | undefined) =>
  contentType?.split(";", 1)[0]!.trim().toLowerCase() === "application/x-ndjson"

const confirmed = { status: "confirmed" }

const lineOf = (result: object) => `${JSON.stringify(result)}\n`

const refusedLine = (refusal: Refusal) => lineOf({ status: "refused", problem: problemOf(refusal) })

/** What becomes of each line, in the order of the lines, which is the messages' order in a queue, too. */
const publishBatch = (
  text: string,
  to: AmqpMessage.Envelope,
  options: { readonly mandatory: boolean }
): Stream.Stream<string, AmqpError.AmqpError, AmqpPublisher.AmqpPublisher> => {
  const messages: Array<AmqpMessage.Message> = []
  // The results of refused lines, by the message that they stand before; at last those behind all of them.
  const before: Array<string> = [""]
  for (const line of text.split("\n")) {
    if (line.trim() === "") continue
    const message = readLine(line, to)
    if (isRefused(message)) before[messages.length] += refusedLine(message)
    else {
      messages.push(message)
      before.push("")
    }
  }
  return AmqpPublisher.publishAll(messages, { ...options, failures: "values" }).pipe(
    Stream.zipWithIndex,
    Stream.map(([{ result }, index]) =>
      [before[index], Result.isSuccess(result) ? lineOf(confirmed) : refusedLine(refusalOf(result.failure))].join("")
    ),
    Stream.concat(Stream.suspend(() => Stream.make(before.at(-1) ?? "")))
  )
}

export const route: (path: string, bounds: Bounds, guard: Guard) => Routed = Effect.fnUntraced(
  function* (path, bounds, guard) {
    const request = yield* HttpServerRequest.HttpServerRequest
    const [named = "", routingKey = "", ...more] = yield* pathBelow(request, path)
    if (named === "" || more.length > 0) return yield* notFound
    const exchange = named === defaultExchange ? "" : named
    yield* guard(request, { action: "publish", exchange, routingKey })
    const mandatory = request.headers["amqp-mandatory"] ?? "true"
    if (mandatory !== "true" && mandatory !== "false")
      return yield* failWith(refuse(400, "mandatory is true or false."))
    const options = { mandatory: mandatory === "true" }
    if (isBatch(request.headers["content-type"])) {
      const body = yield* readBody(request, bounds)
      const publisher = yield* AmqpPublisher.AmqpPublisher
      const results = publishBatch(new TextDecoder().decode(body), { exchange, routingKey }, options)
      return HttpServerResponse.stream(
        results.pipe(Stream.provideService(AmqpPublisher.AmqpPublisher, publisher), Stream.encodeText),
        { contentType: "application/x-ndjson", headers: { "cache-control": "no-store" } }
      )
    }
    const properties = propertiesOf(request.headers)
    if (isRefused(properties)) return yield* failWith(properties)
    const content = yield* readBody(request, bounds)
    yield* AmqpPublisher.publish({ exchange, routingKey, ...properties, content }, options)
    return HttpServerResponse.jsonUnsafe(confirmed, { headers: { "cache-control": "no-store" } })
  }
)
