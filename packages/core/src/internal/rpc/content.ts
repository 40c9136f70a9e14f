/** Contents of procedures that are not JSON: their bytes are sent unchanged. */
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Schema from "effect/Schema"
import type { Envelope, Json, Message } from "../../model/message.ts"
import { json } from "../message/json.ts"

export const Content = Schema.Struct({
  content: Schema.Uint8Array,
  contentType: Schema.optional(Schema.String),
  contentEncoding: Schema.optional(Schema.String)
})

type Value = typeof Content.Type

const raw: Json<typeof Content> = {
  encode: dual(2, ({ content, contentEncoding, contentType }: Value, envelope: Envelope) =>
    Effect.succeed<Message>({ ...envelope, contentType, contentEncoding, content })
  ),
  decode: ({ content, properties: { contentEncoding, contentType } }) =>
    Effect.succeed<Value>({ content, contentType, contentEncoding })
}

/** The codec of contents with this schema. */
export const codecOf = <S extends Schema.Constraint>(schema: S): Json<S> =>
  (schema as unknown) === Content ? (raw as unknown as Json<S>) : json(schema)
