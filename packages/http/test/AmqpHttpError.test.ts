/** Every AMQP error has a response, and no response contains internals. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpError } from "@effect-amqp/core"
import { AmqpHttpError } from "@effect-amqp/http"
import { errors, secret, secretParts } from "./support/errorsWithSecrets.ts"

const bodyOf = (error: AmqpError.AmqpError) => {
  const { body } = AmqpHttpError.toResponse(error)
  assert.strictEqual(body._tag, "Uint8Array")
  return body._tag === "Uint8Array" ? new TextDecoder().decode(body.body) : ""
}

const answerOf = (error: AmqpError.AmqpError) => {
  const { headers, status } = AmqpHttpError.toResponse(error)
  return { status, retryAfter: headers["retry-after"] }
}

describe("AmqpHttpError.toResponse", () => {
  for (const error of errors) {
    const tag = error.reason._tag

    it(`${tag} is a problem of its status, without internals`, () => {
      const { headers, status } = AmqpHttpError.toResponse(error)
      const problem: unknown = JSON.parse(bodyOf(error))
      assert.strictEqual(headers["content-type"], "application/problem+json")
      assert.deepInclude(problem, { type: "about:blank", status })
      for (const word of [...secretParts, tag, "AMQP", "Amqp"]) {
        assert.notInclude(bodyOf(error), word)
      }
    })

    it(`${tag} has Retry-After if waiting helps, and only then`, () => {
      const { retryAfter, status } = answerOf(error)
      assert.strictEqual(retryAfter !== undefined, status === 503)
      if (status === 500 || status === 413 || status === 422) assert.isFalse(error.isRetryable)
    })
  }

  it("distinguishes errors that a retry can solve, timeouts and permanent errors", () => {
    assert.deepStrictEqual(
      Object.fromEntries(errors.map((error) => [error.reason._tag, Object.values(answerOf(error)).join(" ").trim()])),
      {
        InvalidConfig: "500",
        InvalidArgument: "500",
        ConnectFailed: "503 5",
        ConnectTimeout: "503 5",
        StreamStopped: "500",
        TlsFailed: "500",
        AuthenticationFailed: "500",
        VirtualHostRefused: "500",
        ConnectionClosed: "503 5",
        PublishForbidden: "503 10",
        ProtocolError: "500",
        BrokerError: "503 5",
        AccessRefused: "500",
        NotFound: "500",
        ResourceLocked: "503 1",
        PreconditionFailed: "500",
        MessageTooLarge: "413",
        ChannelClosed: "503 1",
        ChannelMaxReached: "503 1",
        ReplyTimeout: "504",
        PublishTimeout: "504",
        PublishNacked: "503 1",
        PublishReturned: "422",
        PublishUnknown: "504",
        ConsumerCancelled: "503 1",
        InactivityTimeout: "503 1",
        DecodeFailed: "500",
        RequestTimeout: "504",
        RemoteFailure: "502",
        InvalidTopology: "500",
        AcquireTimeout: "503 1",
        PoolExhausted: "503 1",
        PoolClosed: "503 5",
        ChannelReleased: "500",
        DeliverySettled: "500",
        UnknownError: "500"
      }
    )
  })

  it("names the late party: the RPC server or the broker", () => {
    const of = (tag: string) => bodyOf(errors.find(({ reason }) => reason._tag === tag)!)
    assert.include(of("RequestTimeout"), "The service did not answer in time.")
    assert.notInclude(of("RequestTimeout"), "broker")
    for (const tag of ["ReplyTimeout", "PublishUnknown"]) {
      assert.include(of(tag), "The message broker did not answer in time.")
    }
  })

  it("a publish that timed out with nothing sent has Retry-After", () => {
    const error = AmqpError.fromReason(new AmqpError.PublishTimeout({ message: secret, sent: false }))
    assert.deepStrictEqual(answerOf(error), { status: 503, retryAfter: "10" })
  })
})
