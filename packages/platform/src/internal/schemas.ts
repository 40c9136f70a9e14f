/** Schemas of Effect 3 for the core, which decodes JSON by a schema of Effect 4. */
import * as Context4 from "@effect-amqp/effect4/Context"
import * as Effect4 from "@effect-amqp/effect4/Effect"
import * as Schema4 from "@effect-amqp/effect4/Schema"
import * as SchemaGetter4 from "@effect-amqp/effect4/SchemaGetter"
import * as SchemaIssue4 from "@effect-amqp/effect4/SchemaIssue"
import * as Effect from "effect/Effect"
import * as ParseResult from "effect/ParseResult"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import { NotJson, withoutUndefined } from "./json.ts"
import { run3 } from "./run.ts"

type Path = ReadonlyArray<PropertyKey>

/** A mistake in a value: where it is, and what was expected there. */
interface Mistake {
  readonly path: Path
  readonly message: string
}

/**
 * The mistakes in a value, without the value: Effect 3's own formatters show it, and messages contain secrets.
 */
const mistakesOf = (issue: ParseResult.ParseIssue): ReadonlyArray<Mistake> => {
  const found: Array<Mistake> = []
  const walk = (issue: ParseResult.ParseIssue, path: Path): void => {
    switch (issue._tag) {
      case "Pointer":
        return walk(issue.issue, path.concat(issue.path as PropertyKey | Path))
      case "Composite": {
        const issues = Array.isArray(issue.issues) ? issue.issues : [issue.issues]
        // The members of a union: what none of them accepts is one mistake.
        if (issue.ast._tag === "Union" && issues.length > 1) {
          found.push({ path, message: `expected ${String(issue.ast)}` })
          return
        }
        for (const each of issues as ReadonlyArray<ParseResult.ParseIssue>) walk(each, path)
        return
      }
      case "Refinement":
        if (issue.kind === "From") return walk(issue.issue, path)
        found.push({ path, message: `expected ${String(issue.ast)}` })
        return
      case "Transformation":
        if (issue.kind !== "Transformation") return walk(issue.issue, path)
        found.push({ path, message: `expected ${String(issue.ast)}` })
        return
      case "Missing":
        found.push({ path, message: "expected a value, got none" })
        return
      case "Unexpected":
        found.push({ path, message: "expected no such key" })
        return
      case "Forbidden":
        found.push({ path, message: "expected a schema that can be used here" })
        return
      case "Type":
        found.push({ path, message: `expected ${String(issue.ast)}` })
    }
  }
  walk(issue, [])
  return found
}

const pathOf = (path: Path): string => {
  let text = "$"
  for (const key of path) {
    text += typeof key === "string" && /^[\w$]+$/.test(key) ? `.${key}` : `[${JSON.stringify(key) ?? String(key)}]`
  }
  return text
}

/** The mistakes as a sentence. */
export const describe = (issue: ParseResult.ParseIssue): string =>
  mistakesOf(issue)
    .map(({ message, path }) => `${message} at ${pathOf(path)}`)
    .join("; ")

const at = ({ message, path }: Mistake): SchemaIssue4.Issue => {
  const invalid = new SchemaIssue4.InvalidValue({ message })
  return path.length === 0 ? invalid : new SchemaIssue4.Pointer(path, invalid)
}

const toIssue4 = (issue: ParseResult.ParseIssue): SchemaIssue4.Issue => {
  const [first, ...others] = mistakesOf(issue).map(at)
  return first === undefined || others.length === 0
    ? (first ?? new SchemaIssue4.InvalidValue())
    : new SchemaIssue4.Composite(Schema4.Unknown.ast, [first, ...others])
}

/** The runtime of the caller, with the services of its schemas, for what Effect 4 calls back. */
export const CallerRuntime: Context4.Reference<Runtime.Runtime<unknown>> = Context4.Reference<Runtime.Runtime<unknown>>(
  "@effect-amqp/platform/CallerRuntime",
  { defaultValue: () => Runtime.defaultRuntime as Runtime.Runtime<unknown> }
)

/** JSON has no `undefined` for a whole content, so it is `null`, as the core writes it. */
const toContent = (encoded: unknown): Effect.Effect<unknown, SchemaIssue4.Issue> => {
  if (encoded === undefined) return Effect.succeed(null)
  try {
    return Effect.succeed(withoutUndefined(encoded))
  } catch (error) {
    if (!(error instanceof NotJson)) throw error
    return Effect.fail(at(error))
  }
}

/**
 * Whether `null` as the whole content stands for `undefined`: where the schema encodes to `undefined`, and has no `null`
 * of its own.
 */
const readsNullAsUndefined = (schema: Schema.Schema<unknown, unknown, unknown>): boolean => {
  if (schema.ast._tag === "VoidKeyword") return true
  const isEncoded = ParseResult.is(Schema.encodedBoundSchema(schema) as Schema.Schema<unknown>)
  return isEncoded(undefined) && !isEncoded(null)
}

/**
 * A schema of Effect 4 that decodes and encodes by one of Effect 3, in the `CallerRuntime`. What is no schema of Effect 3
 * stays as it is: the core refuses it, and says so.
 */
export const toSchema4 = (schema: Schema.Schema.All): Schema4.Codec<unknown, unknown> => {
  if (!Schema.isSchema(schema)) return schema as never
  const any = schema as Schema.Schema<unknown, unknown, unknown>
  const run =
    (f: (value: unknown) => Effect.Effect<unknown, SchemaIssue4.Issue, unknown>) =>
    (value: unknown): Effect4.Effect<unknown, SchemaIssue4.Issue> =>
      Effect4.withFiber((fiber) =>
        run3<unknown, SchemaIssue4.Issue, unknown>(
          fiber.getRef(CallerRuntime),
          Effect.suspend(() => f(value))
        )
      )
  const options = { errors: "all" } as const
  const decodeUnknown = ParseResult.decodeUnknown(any, options)
  const encodeUnknown = ParseResult.encodeUnknown(any, options)
  let isUndefined: boolean | undefined
  const decode = (content: unknown) =>
    Effect.mapError(
      decodeUnknown(content === null && (isUndefined ??= readsNullAsUndefined(any)) ? undefined : content),
      toIssue4
    )
  const encode = (value: unknown) => Effect.flatMap(Effect.mapError(encodeUnknown(value), toIssue4), toContent)
  return Schema4.Unknown.pipe(
    Schema4.decodeTo(Schema4.Unknown, {
      decode: SchemaGetter4.transformEffect(run(decode)),
      encode: SchemaGetter4.transformEffect(run(encode))
    })
  ) as never
}
