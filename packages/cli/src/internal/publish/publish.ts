/** `publish`. */
import { type AmqpError, type AmqpMessage, AmqpPublisher } from "@effect-amqp/core"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { createReadStream, readFileSync } from "node:fs"
import { createInterface } from "node:readline"
import { durationOf } from "../durations.ts"
import { connected } from "../broker/connecting.ts"
import { failureOf } from "../broker/failures.ts"
import type { Shared } from "../broker/Settings.ts"
import { Failure, usage } from "../failure.ts"
import * as Output from "../output/Output.ts"
import { withProgress } from "../output/progress.ts"

interface Options extends Shared {
  readonly content: string | undefined
  readonly file: string | undefined
  readonly lines: boolean
  readonly exchange: string
  readonly key: string
  readonly headers: ReadonlyArray<string>
  readonly headersJson: string | undefined
  readonly expiration: string | undefined
  readonly properties: AmqpMessage.Properties
  readonly mandatory: boolean
}

const headersOf = Effect.fnUntraced(function* ({ headers, headersJson }: Options) {
  const table: Record<string, AmqpMessage.FieldValue> = {}
  if (headersJson !== undefined) {
    const parsed = yield* Effect.try({
      try: (): unknown => JSON.parse(headersJson),
      catch: () => usage("--headers-json: expected a JSON object, got no JSON")
    })
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
      return yield* usage("--headers-json: expected a JSON object, got another value")
    }
    Object.assign(table, parsed)
  }
  for (const header of headers) {
    const at = header.indexOf("=")
    if (at < 1) return yield* usage(`--header: expected NAME=VALUE, got ${JSON.stringify(header)}`)
    table[header.slice(0, at)] = header.slice(at + 1)
  }
  return table
})

const envelopeOf = Effect.fnUntraced(function* (options: Options) {
  if (options.exchange === "" && options.key === "") {
    return yield* usage("publish: expected --key with the name of a queue, or --exchange, got neither")
  }
  const headers = yield* headersOf(options)
  const expiration = options.expiration === undefined ? undefined : yield* durationOf("expiration", options.expiration)
  const envelope: AmqpMessage.Envelope = {
    ...options.properties,
    headers,
    expiration,
    exchange: options.exchange,
    routingKey: options.key
  }
  return envelope
})

const unreadable = (file: string, error: unknown) =>
  usage(`--file: expected a readable file, got ${file} (${error instanceof Error ? error.message : String(error)})`)

/** The contents to publish, as they are needed. */
const contentsOf = ({
  content,
  file,
  lines
}: Options): Effect.Effect<Stream.Stream<string | Uint8Array, Failure>, Failure> =>
  Effect.gen(function* () {
    if (content !== undefined && file !== undefined) {
      return yield* usage("publish: expected one content, got an argument and --file")
    }
    if (content !== undefined && lines) {
      return yield* usage("publish: --lines reads --file or standard input, and a content was given as an argument")
    }
    if (content !== undefined) return Stream.make(content)
    if (file === undefined && process.stdin.isTTY) {
      return yield* usage(
        "publish: expected a content, got none",
        "Give it as an argument or by --file, or pipe it to standard input."
      )
    }
    if (!lines) {
      return Stream.fromEffect(
        Effect.tryPromise({
          try: async () => {
            if (file !== undefined) return readFileSync(file)
            const chunks: Array<Buffer> = []
            for await (const chunk of process.stdin) chunks.push(chunk as Buffer)
            return Buffer.concat(chunks)
          },
          catch: (error) => unreadable(file ?? "standard input", error)
        }).pipe(
          // A job without standard input has an empty one.
          Effect.filterOrFail(
            (bytes) => file !== undefined || bytes.byteLength > 0,
            () =>
              usage(
                "publish: standard input was empty. Nothing was published.",
                "Give '' as an argument for a message without content."
              )
          )
        )
      )
    }
    const input = file === undefined ? process.stdin : createReadStream(file)
    // `readline` reads on after an error of its input, which would hide it.
    async function* each() {
      let failed: Error | undefined
      input.once("error", (error: Error) => void (failed = error))
      yield* createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })
      if (failed !== undefined) throw failed
    }
    return Stream.fromAsyncIterable(each(), (error) => unreadable(file ?? "standard input", error)).pipe(
      Stream.filter((text) => text !== "")
    )
  })

/** The first failure, with the number of the message if there are several. */
const failed = (error: AmqpError.AmqpError, published: number, lines: boolean): Failure => {
  const failure = failureOf(error)
  if (!lines) return failure
  const isRefused = failure.tag === "PublishReturned" || failure.tag === "PublishNacked"
  const message = `Message ${published + 1} ${isRefused ? "was not published" : "is not confirmed"}: ${failure.message.replace(/[^.]$/, "$&.")} ${published} before it are confirmed; some after it may have arrived.`
  return new Failure({ tag: failure.tag, message, cure: failure.cure, exitCode: failure.exitCode })
}

const publishing = Effect.fnUntraced(function* (
  options: Options,
  envelope: AmqpMessage.Envelope,
  contents: Stream.Stream<string | Uint8Array, Failure>
) {
  let published = 0
  const messages = Stream.map(contents, (content): AmqpMessage.Message => ({ ...envelope, content }))
  const work = withProgress("Published", (progress) =>
    AmqpPublisher.publishAll(messages, { mandatory: options.mandatory, failures: "values" }).pipe(
      Stream.runForEach(({ result }) => {
        if (Result.isFailure(result)) return Effect.fail(failed(result.failure, published, options.lines))
        published++
        return options.lines ? progress.report(published, undefined) : Effect.void
      })
    )
  )
  yield* work.pipe(
    Effect.onInterrupt(() =>
      Output.note(`Interrupted: ${published} messages are confirmed; some more may have arrived.`)
    )
  )
  return published
})

export const run = Effect.fnUntraced(function* (options: Options) {
  const envelope = yield* envelopeOf(options)
  const contents = yield* contentsOf(options)
  const published = yield* connected(options, "publish", publishing(options, envelope, contents))
  yield* Output.result({ published, exchange: options.exchange, routingKey: options.key }, () => [
    `${published} message${published === 1 ? "" : "s"} published and confirmed.`
  ])
})
