/** Messages as bytes: checked as a publisher checks them, and read again. */
import * as Effect from "effect/Effect"
import type { AmqpError } from "../../model/error.ts"
import { fail } from "../../model/failures.ts"
import type { EncodeOptions, Encoded, Message } from "../../model/message.ts"
import { SizeLimit } from "../channel/sizeLimit.ts"
import { readPropertyList } from "../wire/contentHeader.ts"
import { isPseudoQueue } from "../wire/directReply.ts"
import { asBuffer, describeType, invalidArgument } from "../wire/fieldTable.ts"
import { integer, isInvalidArgument, readerOf, type Table, withDefault } from "../wire/optionTable.ts"
import { toOutgoing } from "../wire/properties.ts"
import { propertyListOf } from "../wire/propertyList.ts"
import { noReplies } from "./options.ts"

const rules = {
  frameMax: withDefault(integer(4096, 2 ** 32 - 1), 131_072),
  maxMessageSize: withDefault(integer(1, Number.MAX_SAFE_INTEGER), 128 * 2 ** 20)
} satisfies Table<EncodeOptions>

const optionsOf = readerOf(rules)

export const toEncoded = (message: Message, options?: EncodeOptions): Effect.Effect<Encoded, AmqpError> =>
  Effect.suspend(() => {
    const limits = optionsOf("AmqpMessage.toEncoded", options)
    if (isInvalidArgument(limits)) return fail(limits)
    const outgoing = toOutgoing(message, limits.frameMax)
    if (isInvalidArgument(outgoing)) return fail(outgoing)
    const { content, exchange, replyTo, routingKey } = outgoing
    const refused = isPseudoQueue(replyTo)
      ? noReplies(replyTo)
      : new SizeLimit(limits.maxMessageSize).refuses(content.byteLength, undefined)
    if (refused !== undefined) return fail(refused)
    return Effect.succeed({ exchange, routingKey, properties: propertyListOf(outgoing), content })
  })

const fromOperation = "AmqpMessage.fromEncoded"
const expectedList = "the property list of a message (AMQP 0-9-1, section 4.2.6.1)"

const notAList = (got: string) => fail(invalidArgument(fromOperation, "properties", expectedList, got))

export const fromEncoded = (encoded: Encoded): Effect.Effect<Message, AmqpError> =>
  Effect.suspend(() => {
    const { content, exchange, properties, routingKey } = encoded
    if (!(properties instanceof Uint8Array)) return notAList(describeType(properties))
    try {
      return Effect.succeed({ exchange, routingKey, content, ...readPropertyList(asBuffer(properties)) })
    } catch {
      return notAList(`${properties.byteLength} other bytes`)
    }
  })
