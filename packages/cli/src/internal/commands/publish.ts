import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { integer, lazy, options, running } from "./shared.ts"

const text = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar("TEXT"), Flag.withDescription(description), Flag.optional)

export const publish = Command.make(
  "publish",
  {
    content: Argument.String("content").pipe(
      Argument.withDescription("The content. Without it, it comes from --file or standard input"),
      Argument.optional
    ),
    exchange: Flag.String("exchange").pipe(
      Flag.withAlias("e"),
      Flag.withDescription("The exchange. Default: the default exchange, which routes to the queue that --key names"),
      Flag.withDefault("")
    ),
    key: Flag.String("key").pipe(Flag.withAlias("k"), Flag.withDescription("The routing key"), Flag.withDefault("")),
    file: Flag.Path("file").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("A file with the content"),
      Flag.optional
    ),
    lines: Flag.Boolean("lines").pipe(
      Flag.withDescription("Publish one message per line of --file or standard input"),
      Flag.withoutNegation,
      Flag.withDefault(false)
    ),
    headers: options(
      Flag.String("header").pipe(
        Flag.withAlias("H"),
        Flag.withMetavar("NAME=VALUE"),
        Flag.withDescription("A header with text as its value. Repeatable")
      )
    ),
    headersJson: text("headers-json", "Headers as a JSON object, for numbers, booleans and tables"),
    contentType: text("content-type", "MIME type of the content"),
    contentEncoding: text("content-encoding", "Encoding of the content, such as gzip"),
    messageId: text("message-id", "Identifier of the message"),
    correlationId: text("correlation-id", "Identifier of the request that this answers"),
    replyTo: text("reply-to", "Where replies go, usually a queue"),
    type: text("type", "Type of the message"),
    appId: text("app-id", "Identifier of the application"),
    priority: integer("priority", { min: 0, max: 255 }).pipe(Flag.withDescription("Priority, 0 to 255"), Flag.optional),
    expiration: text("expiration", "Time to live, such as 30s or 2h"),
    persistent: Flag.Boolean("persistent").pipe(
      Flag.withDescription("Whether the message survives a restart of the broker. Default: yes"),
      Flag.withDefault(true)
    ),
    mandatory: Flag.Boolean("mandatory").pipe(
      Flag.withDescription("Whether it is a failure if no queue takes the message. Default: yes"),
      Flag.withDefault(true)
    )
  },
  (flags) =>
    running((context) =>
      Effect.flatMap(
        lazy(() => import("../publish/publish.ts")),
        ({ run }) =>
          run({
            ...context,
            ...flags,
            content: Option.getOrUndefined(flags.content),
            file: Option.getOrUndefined(flags.file),
            headersJson: Option.getOrUndefined(flags.headersJson),
            expiration: Option.getOrUndefined(flags.expiration),
            properties: {
              contentType: Option.getOrUndefined(flags.contentType),
              contentEncoding: Option.getOrUndefined(flags.contentEncoding),
              messageId: Option.getOrUndefined(flags.messageId),
              correlationId: Option.getOrUndefined(flags.correlationId),
              replyTo: Option.getOrUndefined(flags.replyTo),
              type: Option.getOrUndefined(flags.type),
              appId: Option.getOrUndefined(flags.appId),
              priority: Option.getOrUndefined(flags.priority),
              persistent: flags.persistent
            }
          })
      )
    )
).pipe(
  Command.withShortDescription("Publish messages, confirmed and mandatory"),
  Command.withDescription(
    "Publishes a message, or one per line, and waits for the broker's confirm. A message that no queue takes is a failure. With --lines the first failure ends the command, and says which message it was; what was confirmed before is not taken back."
  ),
  Command.withExamples([
    {
      command: "effect-amqp publish --key orders '{\"id\":1}' --content-type application/json",
      description: "To a queue"
    },
    {
      command: "effect-amqp publish --exchange shop --key order.created --file order.json",
      description: "To an exchange"
    },
    { command: "cat orders.ndjson | effect-amqp publish --key orders --lines", description: "One message per line" }
  ])
)
