/** What a tap does with the bytes of a broker: what amqplib gets, what channels get, and what ends the connection. */
import { assert, describe, it } from "@effect/vitest"
import { isDeepStrictEqual } from "node:util"
import { afterEach, beforeEach, vi } from "vitest"
import { BrokerClose, MechanismRefused, ProtocolViolation } from "../src/internal/driver/errors.ts"
import { Tap } from "../src/internal/driver/tap.ts"
import { holds, pieces } from "./support/arbitrary.ts"
import {
  encodeFrame,
  encodeHeartbeat,
  encodeMessage,
  FRAME_BODY,
  FRAME_HEADER,
  FRAME_METHOD
} from "./support/frames.ts"
import { type FieldTable, typed } from "../src/testing/internal/memory/codec/fieldTable.ts"
import { handshake, proposal, Tapped, tapped } from "./support/driverTap.ts"

const [start, tune, openOk] = handshake() as [Buffer, Buffer, Buffer]

const heartbeat = encodeHeartbeat()

const close = encodeMessage(0, "connection.close", {
  replyCode: 320,
  replyText: "CONNECTION_FORCED - restart",
  classId: 0,
  methodId: 0
})

const body = Buffer.alloc(300, "x")
const message = (channel: number, size = body.length) =>
  encodeMessage(
    channel,
    "basic.deliver",
    { consumerTag: "tag", deliveryTag: 1, redelivered: false, exchange: "", routingKey: "q" },
    { body: body.subarray(0, size) }
  )

const ack = (channel: number, deliveryTag = 1) => encodeMessage(channel, "basic.ack", { deliveryTag, multiple: false })

const opened = (channel: number) => encodeMessage(channel, "channel.open-ok")

const largeHeader = (channel: number) =>
  encodeFrame(FRAME_HEADER, channel, Buffer.concat([Buffer.of(0, 60), Buffer.alloc(2 ** 20 + 65_536)]))

/** A tap that has read these frames of the handshake. */
const after = (frames: ReadonlyArray<Buffer>, given: Partial<typeof proposal> = {}) => {
  const connection = new Tapped(given)
  connection.receive(...frames)
  return connection
}

const bytewise = (bytes: Buffer) => Array.from(bytes, (_, i) => bytes.subarray(i, i + 1))

describe("the handshake", () => {
  it("reaches amqplib unchanged, whole and byte by byte, and the agreed values are known", () => {
    const bytes = Buffer.concat([start, tune, openOk])
    for (const pieces of [[bytes], bytewise(bytes), [start, tune, openOk]]) {
      const connection = after(pieces)
      assert.deepStrictEqual(connection.pushed, [start, tune, openOk])
      assert.isUndefined(connection.end)
      assert.isUndefined(connection.tap.failure)
      assert.strictEqual(connection.tap.address, "192.0.2.1")
      assert.strictEqual(connection.tap.negotiated?.product, "RabbitMQ")
      assert.isTrue(connection.tap.firstReceived.equals(bytes.subarray(0, 128)))
    }
  })

  /** The method that each step waits for. */
  const steps: ReadonlyArray<readonly [before: ReadonlyArray<Buffer>, expected: string]> = [
    [[], "connection.start"],
    [[start], "connection.tune"],
    [[start, tune], "connection.open-ok"]
  ]

  for (const [before, expected] of steps) {
    /** Checks that this frame fails the opening, and that amqplib sees neither it nor what follows. */
    const fails = (frame: Buffer, message: string) => {
      for (const pieces of [[frame, heartbeat], [Buffer.concat([frame, openOk])], bytewise(frame)]) {
        const connection = after(before)
        void connection.pushed
        connection.receive(...pieces)
        assert.deepStrictEqual(connection.pushed, [])
        assert.strictEqual(connection.tap.failure?.message, message)
        assert.strictEqual(connection.end, connection.tap.failure)
      }
      return after([...before, frame]).tap.failure
    }

    it(`fails, with its own text, if another frame comes in place of ${expected}`, () => {
      const wrong: Record<string, Buffer> = {
        "connection.start": start,
        "connection.tune": tune,
        "connection.open-ok": openOk,
        "connection.close-ok": encodeMessage(0, "connection.close-ok"),
        "connection.blocked": encodeMessage(0, "connection.blocked"),
        "connection.unblocked": encodeMessage(0, "connection.unblocked"),
        "connection.update-secret-ok": encodeMessage(0, "connection.update-secret-ok"),
        "queue.declare-ok": encodeMessage(0, "queue.declare-ok")
      }
      for (const [name, frame] of Object.entries(wrong)) {
        if (name === expected) continue
        assert.instanceOf(fails(frame, `Unexpected frame: expected ${expected}, got ${name}`), ProtocolViolation)
      }
      const texts: ReadonlyArray<readonly [frame: Buffer, message: string]> = [
        [
          encodeMessage(1, "channel.open-ok"),
          "Unexpected frame: got channel.open-ok on channel 1 of a connection that is not open"
        ],
        [ack(7), "Unexpected frame: got basic.ack on channel 7 of a connection that is not open"],
        [
          encodeFrame(FRAME_HEADER, 1, Buffer.alloc(14)),
          "Unexpected frame: got content on a connection that is not open"
        ],
        [encodeFrame(FRAME_BODY, 1, Buffer.alloc(1)), "Unexpected frame: got content on a connection that is not open"],
        [
          encodeFrame(FRAME_METHOD, 0, Buffer.alloc(3)),
          "Invalid frame: expected a method number, got a shorter payload"
        ],
        [
          encodeFrame(FRAME_METHOD, 1, Buffer.alloc(0)),
          "Invalid frame: expected a method number, got a shorter payload"
        ]
      ]
      for (const [frame, message] of texts) assert.instanceOf(fails(frame, message), ProtocolViolation)
    })

    it(`fails if content with a header too large to be read comes in place of ${expected}`, () => {
      const connection = after(before)
      connection.receive(largeHeader(1))
      assert.strictEqual(
        connection.tap.failure?.message,
        "Unexpected frame: got content on a connection that is not open"
      )
      assert.strictEqual(connection.end, connection.tap.failure)
    })

    it(`takes connection.close in place of ${expected} for the broker's, and amqplib answers it`, () => {
      for (const pieces of [[close], bytewise(close), [Buffer.concat([close, heartbeat, ack(1)])]]) {
        const connection = after(before)
        void connection.pushed
        connection.receive(...pieces)
        const { failure } = connection.tap
        assert.instanceOf(failure, BrokerClose)
        assert.deepInclude({ ...failure }, { of: "connection", code: 320, classId: 0, methodId: 0 })
        assert.strictEqual(failure.message, "CONNECTION_FORCED - restart")
        assert.deepStrictEqual(connection.pushed, [close])
        // amqplib ends the socket, after its answer.
        assert.isUndefined(connection.end)
      }
    })

    it(`treats connection.secure in place of ${expected} as a violation: none of our mechanisms has another step`, () => {
      const failure = fails(
        encodeMessage(0, "connection.secure", { challenge: "?" }),
        "SASL mechanism PLAIN: expected no challenge, got connection.secure from the broker"
      )
      assert.instanceOf(failure, ProtocolViolation)
    })

    it(`drops heartbeats before ${expected}`, () => {
      const connection = after(before)
      void connection.pushed
      connection.receive(heartbeat, ...bytewise(heartbeat))
      assert.deepStrictEqual([connection.pushed, connection.end], [[], undefined])
    })
  }

  it("fails with a mechanism that the broker does not offer, and names those that it offers", () => {
    for (const [offered, isOffered] of [
      ["PLAIN", true],
      ["AMQPLAIN PLAIN EXTERNAL", true],
      ["AMQPLAIN", false],
      ["AMQPLAIN PLAINER", false],
      ["", false]
    ] as const) {
      const connection = after([encodeMessage(0, "connection.start", { mechanisms: offered })])
      const { failure } = connection.tap
      if (isOffered) assert.isUndefined(failure)
      else {
        assert.instanceOf(failure, MechanismRefused)
        const names = offered.replaceAll(" ", ", ")
        assert.strictEqual(failure.message, `SASL mechanism: expected the broker to offer PLAIN, got ${names}`)
        assert.deepStrictEqual(connection.pushed, [])
      }
    }
  })

  it("fails before amqplib reads server properties that are nested too deep, or cannot be read", () => {
    let deep: FieldTable = {}
    for (let i = 0; i < 600; i++) deep = { a: deep }
    const unreadable = encodeMessage(0, "connection.start", {
      serverProperties: { a: typed("t", true) },
      mechanisms: "PLAIN"
    })
    // This byte is the type of the only value.
    unreadable[7 + 4 + 2 + 4 + 2] = 0x5a
    for (const frame of [
      encodeMessage(0, "connection.start", { serverProperties: deep, mechanisms: "PLAIN" }),
      unreadable
    ]) {
      const connection = after([frame])
      const { failure } = connection.tap
      assert.instanceOf(failure, ProtocolViolation)
      assert.strictEqual(failure.code, 501)
      assert.match(failure.message, /^the broker's server properties cannot be read: /)
      assert.deepStrictEqual(connection.pushed, [])
    }
  })

  it("fails if connection.start or connection.tune is cut short, or is followed by more bytes", () => {
    for (const [before, whole] of [
      [[], start],
      [[start], tune]
    ] as const) {
      const payload = whole.subarray(7, -1)
      for (let length = 4; length <= payload.length + 1; length++) {
        if (length === payload.length) continue
        const cut = Buffer.concat([payload, Buffer.alloc(1)]).subarray(0, length)
        const connection = after([...before, encodeFrame(FRAME_METHOD, 0, cut)])
        assert.instanceOf(connection.tap.failure, ProtocolViolation, `${length} bytes`)
        assert.strictEqual(connection.end, connection.tap.failure)
      }
    }
  })

  it("fails with a frame-max below 4096; 0 means no limit", () => {
    for (const frameMax of [1, 8, 4095]) {
      const { tap } = after([start, encodeMessage(0, "connection.tune", { frameMax })])
      assert.instanceOf(tap.failure, ProtocolViolation)
      assert.strictEqual(
        tap.failure.message,
        `frame-max: expected at least 4096 from the broker (AMQP's minimum), got ${frameMax}`
      )
    }
    for (const frameMax of [0, 4096]) {
      assert.isUndefined(after([start, encodeMessage(0, "connection.tune", { frameMax })]).tap.failure)
    }
  })

  it("agrees on the lower of both limits; 0 means no limit, and our heartbeat of 0 switches it off", () => {
    type Limits = readonly [channelMax: number, frameMax: number, heartbeat: number]
    const cases: ReadonlyArray<readonly [server: Limits, ours: Limits, agreed: Limits]> = [
      [
        [2047, 131_072, 60],
        [100, 8192, 10],
        [100, 8192, 10]
      ],
      [
        [100, 8192, 10],
        [2047, 131_072, 60],
        [100, 8192, 10]
      ],
      [
        [0, 0, 0],
        [100, 8192, 10],
        [100, 8192, 10]
      ],
      [
        [100, 8192, 10],
        [0, 0, 0],
        [100, 8192, 0]
      ],
      [
        [0, 0, 0],
        [0, 0, 0],
        [65_535, 2 ** 32 - 1, 0]
      ]
    ]
    for (const [server, [channelMax, frameMax, heartbeat], expected] of cases) {
      const [serverChannels, serverFrame, serverHeartbeat] = server
      const { tap } = after(
        handshake({ channelMax: serverChannels, frameMax: serverFrame, heartbeat: serverHeartbeat }),
        { channelMax, frameMax, heartbeat }
      )
      const agreed = tap.negotiated!
      assert.deepStrictEqual([agreed.channelMax, agreed.frameMax, agreed.heartbeat], expected)
    }
  })

  it("accepts frames up to the agreed size once agreed, and up to the proposed size before", () => {
    const of = (size: number) => encodeFrame(FRAME_BODY, 1, Buffer.alloc(size))
    const connection = tapped([1], { initialFrameMax: 200_000 }, { frameMax: 4096 })
    connection.receive(of(4096))
    assert.isUndefined(connection.end)
    connection.receive(of(4097))
    assert.match(connection.end!.message, /^Invalid frame: expected a payload of at most 4096 bytes, got 4097$/)
    const greeting = encodeFrame(FRAME_METHOD, 0, Buffer.alloc(200_001))
    assert.match(
      after([greeting], { initialFrameMax: 200_000 }).end!.message,
      /^Invalid frame: expected a payload of at most 200000 bytes, got 200001$/
    )
  })
})

describe("data behind connection.open-ok", () => {
  const behind = Buffer.concat([
    heartbeat,
    encodeMessage(0, "connection.blocked", { reason: "low on memory" }),
    message(1),
    largeHeader(2),
    encodeMessage(0, "connection.unblocked"),
    close
  ])
  const expected = [
    { of: "blocked", reason: "low on memory" },
    { of: "unblocked" },
    { of: "closed", close: new BrokerClose("connection", 320, "CONNECTION_FORCED - restart", 0, 0) }
  ]

  const isAsExpected = (received: ReadonlyArray<Buffer>): boolean => {
    const connection = new Tapped()
    connection.receive(...received)
    // amqplib has the answer, and nothing else.
    if (!isDeepStrictEqual(connection.pushed, [start, tune, openOk]) || connection.heard.length > 0) return false
    connection.listen()
    if (connection.end !== undefined || !isDeepStrictEqual(connection.heard, expected)) return false
    const blocked = encodeMessage(0, "connection.blocked", { reason: "low on memory" })
    const unblocked = encodeMessage(0, "connection.unblocked")
    return isDeepStrictEqual(connection.pushed, [heartbeat, blocked, unblocked, close])
  }

  it("waits for a listener, wherever the stream is cut", () => {
    const before = Buffer.concat([start, tune, openOk])
    const bytes = Buffer.concat([before, behind])
    const near = bytes.length - 200
    for (let cut = 0; cut <= bytes.length; cut++) {
      // Every cut is tried except those in the middle of the large part.
      if (cut > before.length + 700 && cut < near) continue
      assert.isTrue(isAsExpected([bytes.subarray(0, cut), bytes.subarray(cut)]), `cut at ${cut}`)
    }
  })

  it.effect("waits for a listener, in whatever pieces it arrives", () =>
    holds(pieces(Buffer.concat([start, tune, openOk, behind])), isAsExpected, { runs: 50, size: 40 })
  )

  it("is read in its order before what comes later, also if the pieces meet in the middle of a frame", () => {
    const waiting = encodeMessage(0, "connection.blocked", { reason: "first" })
    const later = encodeMessage(0, "connection.blocked", { reason: "second" })
    for (let cut = 0; cut <= waiting.length; cut++) {
      const connection = after([start, tune, Buffer.concat([openOk, waiting.subarray(0, cut)])])
      connection.listen()
      connection.receive(Buffer.concat([waiting.subarray(cut), later]))
      assert.deepStrictEqual(connection.heard, [
        { of: "blocked", reason: "first" },
        { of: "blocked", reason: "second" }
      ])
    }
  })

  it("that breaks the protocol is reported to the listener, and ends it there", () => {
    const wrong = encodeMessage(0, "connection.tune")
    for (const received of [
      [Buffer.concat([openOk, wrong, close])],
      [openOk, wrong, close],
      [openOk, Buffer.concat([wrong, close])]
    ]) {
      const connection = after([start, tune, ...received])
      assert.strictEqual(connection.end, undefined)
      connection.listen()
      assert.deepStrictEqual(
        connection.heard.map(({ of }) => of),
        ["failed"]
      )
      assert.strictEqual(connection.end?.message, "Unexpected frame: got connection.tune on channel 0")
      assert.deepStrictEqual(connection.pushed, [start, tune, openOk])
    }
  })

  it("is forgotten when the connection is given up", () => {
    const connection = after([start, tune, Buffer.concat([openOk, close])])
    connection.tap.end()
    connection.receive(close)
    connection.listen()
    assert.deepStrictEqual([connection.heard, connection.end], [[], undefined])
  })
})

describe("heartbeats", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }))
  afterEach(() => void vi.useRealTimers())

  it("of the broker reach amqplib once the connection is open", () => {
    const connection = tapped()
    connection.receive(heartbeat, Buffer.concat([heartbeat, heartbeat]))
    assert.deepStrictEqual(connection.pushed, [heartbeat, heartbeat, heartbeat])
  })

  it("are synthesized for traffic that amqplib does not see: one per half interval in which bytes arrived, none without", () => {
    const connection = tapped([1], { heartbeat: 10 }, { heartbeat: 10 })
    connection.receive(message(1))
    assert.deepStrictEqual(connection.pushed, [])
    vi.advanceTimersByTime(4999)
    connection.receive(message(1))
    assert.deepStrictEqual(connection.pushed, [])
    vi.advanceTimersByTime(1)
    connection.receive(message(1))
    assert.deepStrictEqual(connection.pushed, [heartbeat])
    vi.advanceTimersByTime(4999)
    connection.receive(message(1))
    assert.deepStrictEqual(connection.pushed, [])
    // What amqplib gets counts as traffic, too.
    connection.receive(heartbeat)
    vi.advanceTimersByTime(4999)
    connection.receive(message(1))
    assert.deepStrictEqual(connection.pushed, [heartbeat])
    vi.advanceTimersByTime(1)
    connection.receive(message(1))
    assert.deepStrictEqual(connection.pushed, [heartbeat])
  })

  it("are synthesized for bytes of an incomplete frame, however slowly it arrives", () => {
    const connection = tapped([1], { heartbeat: 10 }, { heartbeat: 10 })
    let stood = 0
    for (const byte of bytewise(message(1, 20))) {
      vi.advanceTimersByTime(5000)
      connection.receive(byte)
      stood += connection.pushed.length
    }
    assert.strictEqual(stood, message(1, 20).length)
  })

  it("are not synthesized if nothing arrives, if heartbeats are off, or after the end", () => {
    const silent = tapped([1], { heartbeat: 10 }, { heartbeat: 10 })
    vi.advanceTimersByTime(60_000)
    assert.deepStrictEqual(silent.pushed, [])
    silent.receive(close)
    assert.deepStrictEqual(silent.pushed, [close])
    vi.advanceTimersByTime(60_000)
    silent.receive(message(1))
    assert.deepStrictEqual(silent.pushed, [])
    const without = tapped([1])
    vi.advanceTimersByTime(60_000)
    without.receive(message(1))
    assert.deepStrictEqual(without.pushed, [])
  })
})

describe("a channel", () => {
  const closed = encodeMessage(1, "channel.close", {
    replyCode: 404,
    replyText: "NOT_FOUND",
    classId: 50,
    methodId: 10
  })

  it("gets the frames of its number, in their order, and amqplib gets those that it requested", () => {
    const connection = tapped([1, 2])
    connection.receive(ack(2), message(1), ack(1))
    assert.deepStrictEqual(
      connection.heard.map((heard) => [heard.of, "channel" in heard && heard.channel]),
      [
        ["method", 2],
        ["method", 1],
        ["header", 1],
        ["body", 1],
        ["method", 1]
      ]
    )
    assert.deepStrictEqual(connection.pushed, [])
    connection.isForAmqplib = true
    connection.receive(ack(1), message(2))
    assert.deepStrictEqual(connection.pushed, [
      ack(1),
      encodeMessage(2, "basic.deliver", {
        consumerTag: "tag",
        deliveryTag: 1,
        redelivered: false,
        exchange: "",
        routingKey: "q"
      })
    ])
  })

  it("gets what arrived for it between its open-ok and its attachment, in the order of arrival", () => {
    const bytes = Buffer.concat([opened(1), ack(1), message(1), ack(1, 2), closed])
    const expected = ["method", "method", "header", "body", "method", "method"]
    for (let cut = 0; cut <= bytes.length; cut++) {
      const connection = tapped()
      connection.open()
      connection.receive(bytes.subarray(0, cut), bytes.subarray(cut))
      assert.deepStrictEqual(connection.pushed, [opened(1)])
      assert.deepStrictEqual(connection.heard, [])
      connection.attach(1)
      assert.deepStrictEqual(
        connection.heard.map(({ of }) => of),
        expected,
        `cut at ${cut}`
      )
      const [content] = connection.heard.flatMap((heard) => (heard.of === "body" ? [heard.content] : []))
      assert.isTrue(content?.equals(body))
    }
  })

  it("that is attached in the middle of a body gets the rest after what has waited", () => {
    const bytes = Buffer.concat([opened(1), message(1)])
    for (let cut = opened(1).length; cut <= bytes.length; cut++) {
      const connection = tapped()
      connection.open()
      connection.receive(bytes.subarray(0, cut))
      connection.attach(1)
      connection.receive(bytes.subarray(cut))
      assert.deepStrictEqual(
        connection.heard.map((heard) => (heard.of === "body" ? heard.content.equals(body) : heard.of)),
        ["method", "header", true]
      )
    }
  })

  it("that is closed in place of its open-ok is opened for amqplib first, and gets its close when it is attached", () => {
    for (const pieces of [[closed], bytewise(closed)]) {
      const connection = tapped()
      connection.open()
      connection.receive(...pieces)
      const [first, ...others] = connection.pushed
      assert.deepStrictEqual(others, [])
      assert.isTrue(first?.equals(opened(1)))
      connection.isForAmqplib = true
      connection.attach(1)
      assert.deepStrictEqual(connection.heard, [{ of: "method", channel: 1, bytes: closed.subarray(7, -1) }])
      assert.deepStrictEqual(connection.pushed, [closed])
    }
  })

  it("that was not requested is not opened, and is a violation", () => {
    for (const frame of [opened(1), closed]) {
      const connection = tapped()
      connection.receive(frame)
      assert.match(connection.end!.message, /^Unexpected frame: got channel\.\S+ on channel 1, which is not open$/)
      assert.deepStrictEqual(connection.pushed, [])
    }
    const second = tapped()
    second.open()
    second.receive(opened(1), opened(2))
    assert.strictEqual(second.end?.message, "Unexpected frame: got channel.open-ok on channel 2, which is not open")
  })

  it("that is not open drops frames of messages; all other frames are violations", () => {
    const dropped = [message(5), ack(5), message(5, 0), largeHeader(5), encodeMessage(5, "basic.cancel")]
    const connection = tapped([1])
    for (const frame of dropped) connection.receive(frame)
    assert.deepStrictEqual([connection.heard, connection.pushed, connection.end], [[], [], undefined])
    for (const frame of [
      encodeMessage(5, "channel.close-ok"),
      encodeMessage(5, "channel.flow"),
      encodeMessage(5, "queue.declare-ok"),
      encodeMessage(5, "confirm.select-ok"),
      encodeMessage(5, "tx.commit-ok")
    ]) {
      const connection = tapped([1])
      connection.receive(Buffer.concat([frame, ack(1)]))
      assert.instanceOf(connection.end, ProtocolViolation)
      assert.match(
        connection.end.message,
        /^Unexpected frame: got (\S+-ok|channel\.flow) on channel 5, which is not open$/
      )
      assert.deepStrictEqual(
        connection.heard.map(({ of }) => of),
        ["failed"]
      )
    }
  })

  it("that has ended gets nothing more, until another one has its number", () => {
    const connection = tapped([1])
    connection.tap.detach(1)
    connection.receive(message(1), ack(1), largeHeader(1))
    assert.deepStrictEqual(connection.heard, [])
    connection.open()
    connection.receive(opened(1), ack(1, 2))
    connection.attach(1)
    assert.deepStrictEqual(connection.heard, [{ of: "method", channel: 1, bytes: ack(1, 2).subarray(7, -1) }])
  })

  it("that ends in the middle of a message drops the rest of it", () => {
    const bytes = message(1)
    for (let cut = 1; cut < bytes.length; cut++) {
      const connection = tapped([1])
      connection.receive(bytes.subarray(0, cut))
      const heard = connection.heard.length
      connection.tap.detach(1)
      connection.receive(bytes.subarray(cut), heartbeat)
      assert.deepStrictEqual(
        [connection.heard.length, connection.pushed, connection.end],
        [heard, [heartbeat], undefined]
      )
    }
  })

  it("that the broker has not opened cannot be attached, nor one twice", () => {
    const connection = tapped([1])
    assert.throws(() => connection.attach(2), /expected a channel that the broker has opened, got channel 2/)
    assert.throws(() => connection.attach(1), /expected a channel that the broker has opened, got channel 1/)
  })
})

describe("an open connection", () => {
  it("reports the broker's methods before amqplib reads them", () => {
    const connection = tapped()
    const frames = [
      encodeMessage(0, "connection.blocked", { reason: "low on disk" }),
      encodeMessage(0, "connection.unblocked"),
      encodeMessage(0, "connection.update-secret-ok"),
      close
    ]
    connection.receive(...frames)
    assert.deepStrictEqual(
      connection.heard.map(({ of }) => of),
      ["blocked", "unblocked", "secretTaken", "closed"]
    )
    assert.deepStrictEqual(connection.pushed, frames)
  })

  it("that is closed by either side reads nothing more", () => {
    for (const last of [close, encodeMessage(0, "connection.close-ok")]) {
      const connection = tapped([1])
      connection.receive(Buffer.concat([last, ack(1), message(1), largeHeader(1), encodeMessage(0, "connection.tune")]))
      connection.receive(ack(1), Buffer.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
      assert.deepStrictEqual(connection.pushed, [last])
      assert.isTrue(connection.heard.every(({ of }) => of === "closed"))
      assert.isUndefined(connection.end)
    }
  })

  it("takes any other method on channel 0 for a violation, and drops what was collected for amqplib", () => {
    const connection = tapped([1])
    connection.isForAmqplib = true
    const frames = Array.from({ length: 100 }, (_, i) => ack(1, i))
    connection.receive(...frames, Buffer.concat(frames))
    assert.deepStrictEqual(connection.pushed, [...frames, ...frames])
    connection.receive(Buffer.concat([encodeMessage(0, "queue.declare-ok"), ack(1)]))
    assert.strictEqual(connection.end?.message, "Unexpected frame: got queue.declare-ok on channel 0")
    assert.deepStrictEqual(connection.pushed, [])
  })

  it("is destroyed if a listener throws, and reports it: nothing leaves the callback of onread", () => {
    const defect = new Error("a defect")
    const thrower = () => {
      throw defect
    }
    for (const frame of [ack(1), message(1)]) {
      for (const which of ["method", "header", "body"] as const) {
        const connection = tapped()
        connection.open()
        connection.receive(opened(1))
        const frames = { method: () => false, header: () => {}, body: () => {}, [which]: thrower }
        connection.opening--
        connection.tap.attach(1, frames)
        connection.receive(frame, ack(1))
        if (which !== "method" && frame.length < 50) {
          assert.isUndefined(connection.end)
          continue
        }
        assert.strictEqual(connection.end, defect)
        assert.deepStrictEqual(connection.heard, [{ of: "failed", cause: defect }])
      }
    }
    // The same applies to frames that have waited for their channel.
    const waiting = tapped()
    waiting.open()
    waiting.receive(opened(1), ack(1))
    waiting.opening--
    waiting.tap.attach(1, { method: thrower, header: () => {}, body: () => {} })
    assert.strictEqual(waiting.end, defect)
  })

  it("keeps reading, whatever arrives: the callback of onread never stops Node", () => {
    const { callback, buffer } = new Tap(proposal).onread
    const socket = new Tapped()
    assert.isTrue(callback.call(socket, 0, buffer))
  })
})
