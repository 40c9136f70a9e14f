/** The reason that each report of the broker, the driver and the system becomes. */
import { assert, describe, it, layer } from "@effect/vitest"
import { AmqpChannel, AmqpError, AmqpPool } from "@effect-amqp/core"
import { TestBroker } from "@effect-amqp/core/testing"
import { Effect, Schema } from "effect"
import { classify } from "../src/internal/connection/classify.ts"
import {
  BrokerClose,
  ChannelEnded,
  MechanismRefused,
  ChannelNumbersExhausted,
  HandshakeTimedOut,
  ProtocolViolation
} from "../src/internal/driver/driver.ts"
import { withPool, reasonOf } from "./support/amqp.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"
import { major } from "./support/versions.ts"

const once = <A>(f: (channel: AmqpChannel.AmqpChannel) => Effect.Effect<A, AmqpError.AmqpError>) =>
  Effect.scoped(AmqpChannel.use(f))

layer(TestBroker.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
  describe("a broker's refusal becomes its reason, with the code and the broker's words", () => {
    const refusals: Record<
      string,
      {
        readonly tag: AmqpError.AmqpErrorReason["_tag"]
        readonly code: number
        readonly words: string
        readonly cause: Effect.Effect<unknown, AmqpError.AmqpError, AmqpPool.AmqpPool>
      }
    > = {
      "a queue that does not exist": {
        tag: "NotFound",
        code: 404,
        words: "no queue 'missing'",
        cause: once((channel) => channel.get("missing"))
      },
      "a queue declared with other properties": {
        tag: "PreconditionFailed",
        code: 406,
        words: "inequivalent arg 'durable'",
        cause: Effect.andThen(
          once((channel) => channel.queueDeclare("other", { durable: true })),
          once((channel) => channel.queueDeclare("other", { durable: false }))
        )
      },
      "a name that only the broker may give": {
        tag: "AccessRefused",
        code: 403,
        words: "amq.",
        cause: once((channel) => channel.exchangeDeclare("amq.mine", "fanout"))
      }
    }
    for (const [name, { cause, code, tag, words }] of Object.entries(refusals)) {
      it.effect(name, () =>
        Effect.gen(function* () {
          const { url } = yield* TestBroker.TestBroker
          const reason = yield* reasonOf(cause).pipe(withPool(url))
          assert.strictEqual(reason._tag, tag)
          assert.deepInclude(reason, { replyCode: code })
          assert.include(reason.message, words)
        })
      )
    }

    it.effect("an exchange of an unknown type ends the connection on RabbitMQ 3, and the channel on RabbitMQ 4", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const cause = once((channel) => channel.exchangeDeclare("x", "no-such-type"))
        const reason = yield* reasonOf(cause).pipe(withPool(url))
        const expected =
          (yield* major) < 4
            ? ({ _tag: "ProtocolError", replyCode: 503, severity: "connection" } as const)
            : ({ _tag: "PreconditionFailed", replyCode: 406, severity: "channel" } as const)
        assert.deepInclude(reason, expected)
        assert.include(reason.message, "unknown exchange type")
      })
    )

    it.effect("an exclusive queue of another connection: ResourceLocked, 405", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const { queue } = yield* once((channel) => channel.queueDeclare("", { exclusive: true })).pipe(
          Effect.tap(({ queue }) =>
            Effect.gen(function* () {
              const reason = yield* reasonOf(once((channel) => channel.get(queue))).pipe(withPool(url))
              assert.strictEqual(reason._tag, "ResourceLocked")
              assert.deepInclude(reason, { replyCode: 405, severity: "channel", isRetryable: true })
            })
          ),
          withPool(url)
        )
        assert.match(queue, /^amq\.gen-/)
      })
    )

    it.effect("a user without permission: AccessRefused, 403, and its channel alone is lost", () =>
      Effect.gen(function* () {
        const { ctl, url, vhost } = yield* TestBroker.TestBroker
        const user = `limited-${vhost}`
        yield* ctl("add_user", user, "limited")
        yield* ctl("set_permissions", "-p", vhost, user, "", "", ".*")
        const as = new URL(url)
        as.username = user
        as.password = "limited"
        yield* Effect.gen(function* () {
          const sibling = yield* AmqpPool.get
          const reason = yield* reasonOf(once((channel) => channel.queueDeclare("forbidden")))
          assert.strictEqual(reason._tag, "AccessRefused")
          assert.include(reason.message, user)
          yield* sibling.publish({ routingKey: "q", content: "" })
        }).pipe(Effect.scoped, withPool(as.href))
        yield* ctl("delete_user", user)
      })
    )

    it.effect("a publish to a missing exchange: the next operation fails with the reason", () =>
      Effect.gen(function* () {
        const { url } = yield* TestBroker.TestBroker
        const reason = yield* reasonOf(
          once((channel) =>
            Effect.andThen(
              channel.publish({ exchange: "missing", routingKey: "", content: "lost" }),
              channel.queueDeclare("", { exclusive: true })
            )
          )
        ).pipe(withPool(url))
        assert.include(reason.message, "no exchange 'missing'")
        assert.strictEqual(reason.severity, "channel")
      })
    )
  })
})

describe("a broker that ends the connection", () => {
  const codes: Record<number, AmqpError.AmqpErrorReason["_tag"]> = {
    320: "ConnectionClosed",
    501: "ProtocolError",
    504: "ProtocolError",
    506: "BrokerError",
    530: "ProtocolError",
    541: "BrokerError"
  }
  for (const [code, tag] of Object.entries(codes)) {
    it.live(`with ${code}: ${tag}, of severity "connection"`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        broker.once("queue.declare", (context) => context.closeConnection(Number(code)))
        const reason = yield* reasonOf(once((channel) => channel.queueDeclare("q"))).pipe(withPool(broker.url))
        assert.strictEqual(reason._tag, tag)
        assert.strictEqual(reason.severity, "connection")
      })
    )
  }
})

describe("errors of Node", () => {
  const handshake = { operation: "connection.open", peer: "rabbit:5671", handshake: true }
  const failure = (code: string, message = "it failed") => Object.assign(new Error(message), { code })
  const codes: Record<string, AmqpError.AmqpErrorReason["_tag"]> = {
    ECONNREFUSED: "ConnectFailed",
    ENOTFOUND: "ConnectFailed",
    EHOSTUNREACH: "ConnectFailed",
    ETIMEDOUT: "ConnectTimeout",
    ECONNRESET: "ConnectionClosed",
    EPIPE: "ConnectionClosed",
    CERT_HAS_EXPIRED: "TlsFailed",
    DEPTH_ZERO_SELF_SIGNED_CERT: "TlsFailed",
    SELF_SIGNED_CERT_IN_CHAIN: "TlsFailed",
    UNABLE_TO_VERIFY_LEAF_SIGNATURE: "TlsFailed",
    ERR_TLS_CERT_ALTNAME_INVALID: "TlsFailed",
    ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: "TlsFailed"
  }
  for (const [code, tag] of Object.entries(codes)) {
    it(`${code} is ${tag}`, () => assert.strictEqual(classify(failure(code), handshake)._tag, tag))
  }

  it("both addresses of a host refused: each is named", () => {
    const both = Object.assign(
      new AggregateError([failure("ECONNREFUSED", "connect ::1"), failure("ECONNREFUSED", "connect 127.0.0.1")], ""),
      { code: "ECONNREFUSED" }
    )
    const reason = classify(both, handshake)
    assert.strictEqual(reason._tag, "ConnectFailed")
    assert.include(reason.message, "connect ::1, connect 127.0.0.1")
  })

  it("an error that no rule matches is UnknownError, and keeps its message and its cause", () => {
    const cause = new Error("something new")
    const reason = classify(cause, { operation: "queue.declare" })
    assert.strictEqual(reason._tag, "UnknownError")
    assert.include(reason.message, "something new")
    assert.strictEqual(reason.cause, cause)
  })
})

describe("closes that the frames give", () => {
  const opening = { operation: "connection.open", peer: "rabbit:5672", vhost: "orders", handshake: true }
  const working = { operation: "queue.declare", peer: "rabbit:5672" }
  const close = (code: number, text: string) => new BrokerClose("connection", code, text, 0, 0)
  type Tag = AmqpError.AmqpErrorReason["_tag"]
  const cases: ReadonlyArray<
    readonly [what: string, cause: Error, tag: Tag, whileOpening: Tag | undefined, code: number | undefined]
  > = [
    ["311", close(311, "CONTENT_TOO_LARGE"), "MessageTooLarge", undefined, 311],
    ["320", close(320, "CONNECTION_FORCED - restart"), "ConnectionClosed", "ConnectionClosed", 320],
    ["402", close(402, "INVALID_PATH"), "ProtocolError", "VirtualHostRefused", 402],
    ["403", close(403, "ACCESS_REFUSED"), "AccessRefused", "AuthenticationFailed", 403],
    ["404", close(404, "NOT_FOUND - no queue 'q'"), "NotFound", undefined, 404],
    ["405", close(405, "RESOURCE_LOCKED"), "ResourceLocked", undefined, 405],
    ["406", close(406, "PRECONDITION_FAILED"), "PreconditionFailed", undefined, 406],
    ["406 of a large message", close(406, "message size 2 is larger than 1"), "MessageTooLarge", undefined, 406],
    ["530", close(530, "NOT_ALLOWED - vhost orders not found"), "ProtocolError", "VirtualHostRefused", 530],
    [
      "530 of a limit",
      close(530, "NOT_ALLOWED - connection limit (1) is reached"),
      "ProtocolError",
      "BrokerError",
      530
    ],
    ...[501, 502, 503, 504, 505, 540].map(
      (code) => [String(code), close(code, "it says why"), "ProtocolError", "ProtocolError", code] as const
    ),
    ...[506, 541].map(
      (code) => [String(code), close(code, "it says why"), "BrokerError", "BrokerError", code] as const
    ),
    ["a code that AMQP does not have", close(999, "it says why"), "ConnectionClosed", "ConnectionClosed", 999],
    [
      "a code that AMQP does not have, of a channel",
      new BrokerClose("channel", 999, "it says why", 0, 0),
      "ChannelClosed",
      undefined,
      999
    ],
    ["a frame that is none", new ProtocolViolation("Invalid frame", 501), "ProtocolError", "ProtocolError", 501],
    ["a frame out of place", new ProtocolViolation("Unexpected frame"), "ProtocolError", "ProtocolError", 505],
    ["a body that is too large", new ProtocolViolation("too large", 311), "MessageTooLarge", undefined, 311]
  ]
  for (const [what, cause, tag, whileOpening, code] of cases) {
    it(`${what}: ${tag}, with its code and words${whileOpening === undefined ? "" : `; while it opens ${whileOpening}`}`, () => {
      for (const [context, expected] of [
        [working, tag],
        [opening, whileOpening]
      ] as const) {
        if (expected === undefined) continue
        const reason = classify(cause, context)
        assert.strictEqual(reason._tag, expected)
        assert.deepInclude(reason, { replyCode: code, cause })
        assert.include(reason.message, cause.message)
      }
    })
  }

  const others: ReadonlyArray<readonly [cause: Error, tag: Tag, words: string]> = [
    [new MechanismRefused("PLAIN is not offered"), "AuthenticationFailed", "PLAIN is not offered (rabbit:5672)"],
    [
      new ChannelNumbersExhausted("all 2047 are in use"),
      "ChannelMaxReached",
      "raise channelMax, or lower the pool's max"
    ],
    [new ChannelEnded("the channel is closed"), "ChannelClosed", "queue.declare: the channel is closed"],
    [
      new HandshakeTimedOut("no bytes received for 10 ms"),
      "ConnectTimeout",
      "rabbit:5672 stopped answering while the connection was opening"
    ]
  ]
  for (const [cause, tag, words] of others) {
    it(`${cause.name} is ${tag}`, () => {
      const reason = classify(cause, working)
      assert.strictEqual(reason._tag, tag)
      assert.include(reason.message, words)
      assert.strictEqual(reason.cause, cause)
    })
  }

  it("the channel limit of a user or a node is retryable, whatever its code", () => {
    const reason = classify(
      close(
        530,
        "NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum allowed user limit of (5)"
      ),
      working
    )
    assert.strictEqual(reason._tag, "BrokerError")
  })
})

it("a queue or an exchange that does not exist: the message says what to do", () => {
  const messageOf = (text: string) =>
    classify(new BrokerClose("channel", 404, `NOT_FOUND - ${text}`, 60, 20), { operation: "basic.consume" }).message
  const advice = ". Declare it first, or check its name and the virtual host."
  for (const text of ["no queue 'q' in vhost '/'", "no exchange 'e' in vhost '/'"]) {
    assert.strictEqual(messageOf(text), `basic.consume: NOT_FOUND - ${text}${advice}`)
  }
  // Publishers find the message with such a name by the end of the text.
  const truncated = `no exchange '${"e".repeat(220)}...`
  assert.strictEqual(messageOf(truncated), `basic.consume: NOT_FOUND - ${truncated}`)
  // This queue is declared.
  const down = "home node 'rabbit@b' of durable queue 'q' in vhost '/' is down or inaccessible"
  assert.strictEqual(messageOf(down), `basic.consume: NOT_FOUND - ${down}`)
})

describe("the ways in which amqplib reports that a connection is gone", () => {
  for (const text of ["Heartbeat timeout", "Unexpected close", "Socket closed abruptly during opening handshake"]) {
    it(`${text}: ConnectionClosed`, () => {
      const reason = classify(new Error(text), { operation: "queue.declare", peer: "rabbit:5672" })
      assert.strictEqual(reason._tag, "ConnectionClosed")
      assert.include(reason.message, text)
    })
  }

  it("while it opens, the message says that the port may be that of another protocol", () => {
    const reset = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" })
    for (const cause of [reset, new Error("Socket closed abruptly during opening handshake")]) {
      const context = { operation: "connection.open", peer: "rabbit:5671", handshake: true }
      assert.strictEqual(
        classify(cause, context).message,
        `connection.open: rabbit:5671 closed the connection before the AMQP handshake was finished: ${cause.message}. ` +
          "Check that this is the port of AMQP: RabbitMQ listens for AMQP on port 5672, and on port 5671 with TLS. " +
          "If it is, the broker's log says why."
      )
      assert.notInclude(classify(cause, { ...context, handshake: undefined }).message, "port of AMQP")
    }
  })
})

describe("a refused declaration says what differs", () => {
  const reasonFor = (text: string) =>
    classify(new BrokerClose("channel", 406, `PRECONDITION_FAILED - ${text}`, 50, 10), { operation: "queue.declare" })
  const texts: Record<
    string,
    { readonly text: string; readonly argument?: string; readonly received?: string; readonly current?: string }
  > = {
    "two values": {
      text: "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'",
      argument: "durable",
      received: "false",
      current: "true"
    },
    "a value that was not there": {
      text: "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received the value '10' of type 'byte' but current is none",
      argument: "x-message-ttl",
      received: "10",
      current: "none"
    },
    "a value that is missing": {
      text: "inequivalent arg 'alternate-exchange' for exchange 'x' in vhost 'a b': received none but current is the value 'y' of type 'longstr'",
      argument: "alternate-exchange",
      received: "none",
      current: "y"
    },
    "values with quotes": {
      text: "inequivalent arg 'x-dead-letter-exchange' for queue 'it's' in vhost 'its 'own'': received 'b's' but current is 'the 'a''",
      argument: "x-dead-letter-exchange",
      received: "b's",
      current: "the 'a'"
    },
    "a text cut off in a value": {
      text: `inequivalent arg 'x-dead-letter-exchange' for queue 'q' in vhost '/': received '${"b".repeat(100)}...`,
      argument: "x-dead-letter-exchange"
    },
    "a text cut off in a name": {
      text: `inequivalent arg 'x-dead-letter-exchange' for queue '${"n".repeat(150)}...`,
      argument: "x-dead-letter-exchange"
    },
    "an argument of another kind of queue": {
      text: "invalid arg 'x-max-priority' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue",
      argument: "x-max-priority"
    },
    "a property of another kind of queue": {
      text: "invalid property 'non-durable' for queue 'q' in vhost '/'",
      argument: "non-durable"
    },
    "no declaration": { text: "unknown delivery tag 7" },
    "no declaration either": { text: "queue 'q' in vhost '/' not empty" }
  }
  for (const [name, { argument, current, received, text }] of Object.entries(texts)) {
    it(name, () => {
      const reason = reasonFor(text)
      assert.strictEqual(reason._tag, "PreconditionFailed")
      if (reason._tag !== "PreconditionFailed") return
      assert.deepStrictEqual([reason.argument, reason.received, reason.current], [argument, received, current])
      assert.include(reason.message, text)
    })
  }

  it("and proposes a policy where one would do", () => {
    const added = (argument: string) =>
      reasonFor(
        `inequivalent arg '${argument}' for queue 'q' in vhost '/': received the value '1' of type 'byte' but current is none`
      ).message
    assert.include(added("x-max-length"), "leave x-max-length out and set it by a policy")
    assert.notInclude(added("x-max-priority"), "policy")
    assert.notInclude(
      reasonFor(
        "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received none but current is the value '1' of type 'byte'"
      ).message,
      "policy"
    )
  })
})

describe("AmqpError", () => {
  const error = AmqpError.fromReason(new AmqpError.NotFound({ message: "no queue", replyCode: 404 }))

  it("has the message of its reason", () => {
    assert.strictEqual(error.message, "no queue")
    assert.strictEqual(error.severity, "channel")
    assert.isFalse(error.isRetryable)
    assert.strictEqual(error.cause, error.reason)
    assert.isTrue(AmqpError.isAmqpError(error))
    assert.isTrue(AmqpError.isAmqpErrorReason(error.reason))
  })

  it("survives structuredClone", () => {
    const sent = JSON.parse(JSON.stringify(Schema.encodeSync(AmqpError.AmqpError)(error)))
    const back = Schema.decodeUnknownSync(AmqpError.AmqpError)(sent)
    assert.strictEqual(back.reason._tag, "NotFound")
    assert.strictEqual(back.message, "no queue")
  })

  it.effect("is taken apart by its reason", () =>
    Effect.gen(function* () {
      const caught = yield* Effect.fail(error).pipe(
        Effect.catchReason("AmqpError", "NotFound", (reason) => Effect.succeed(reason.replyCode))
      )
      assert.strictEqual(caught, 404)
    })
  )
})
