/** A frame that a client may not send is found, and one that it may send is not. */
import { assert, describe, it } from "@effect/vitest"
import { encodeFrame, encodeHeartbeat, encodeMessage, FRAME_BODY, PROTOCOL_HEADER } from "./support/frames.ts"
import { FrameOrder } from "./support/FrameOrder.ts"

const open = encodeMessage(1, "channel.open")
const close = encodeMessage(1, "channel.close")
const closeOk = encodeMessage(1, "channel.close-ok")
const ack = encodeMessage(1, "basic.ack", { deliveryTag: 1 })
const endOk = encodeMessage(0, "connection.close-ok")
const end = encodeMessage(0, "connection.close")
const message = encodeMessage(1, "basic.publish", { routingKey: "q" }, { body: Buffer.alloc(200, "x") }, 100)
const method = encodeMessage(1, "basic.publish", { routingKey: "q" })
/** The method, the header and the first of three bodies of a message. */
const begun = message.subarray(0, -(100 + 24))
const theBroker = { closes: "channel.close", answers: "channel.close-ok" } as const

type Step = Uint8Array | keyof typeof theBroker

const problemsOf = (steps: ReadonlyArray<Step>, cut = Infinity) => {
  const order = new FrameOrder()
  order.frameMax = 4096
  order.take(PROTOCOL_HEADER)
  for (const step of steps) {
    if (typeof step === "string") order.brokerSent(1, theBroker[step])
    else for (let at = 0; at < step.length; at += cut) order.take(Buffer.from(step.subarray(at, at + cut)))
  }
  return order.problems
}

const allowed: Record<string, ReadonlyArray<Step>> = {
  "a message in many frames, and a method behind it": [open, message, ack, close],
  "heartbeats between the frames of a message": [open, begun, encodeHeartbeat(), message.subarray(begun.length), ack],
  "a method of another channel between them": [
    open,
    encodeMessage(2, "channel.open"),
    begun,
    encodeMessage(2, "basic.ack"),
    message.subarray(begun.length)
  ],
  "the broker's close answered amid a message": [open, begun, "closes", closeOk, open, ack],
  "what is on its way when the broker closes": [open, "closes", message, ack, closeOk],
  "a close of both": [open, close, "closes", closeOk, "answers", open],
  "a close of both, answered before our answer is read": [open, "closes", close, "answers", closeOk, open],
  "a number that is used again": [open, close, "answers", open, message],
  "an end of the connection by both": [open, end, endOk]
}

const refused: Record<string, readonly [string, ReadonlyArray<Step>]> = {
  "a method amid a message": ["basic.ack on channel 1 where content is to come", [open, begun, ack]],
  "a close of its own amid a message": ["channel.close on channel 1 where content is to come", [open, begun, close]],
  "a method in place of a header": ["basic.ack on channel 1 where content is to come", [open, method, ack]],
  "a message within a message": ["basic.publish on channel 1 where content is to come", [open, begun, method]],
  "a body without a header": [
    "a body on channel 1 that no header has announced",
    [open, encodeFrame(FRAME_BODY, 1, Buffer.alloc(1))]
  ],
  "a header without a method": [
    "a header on channel 1 that no publish has announced",
    [open, message.subarray(method.length)]
  ],
  "more body than was announced": [
    "a body on channel 1 that no header has announced",
    [open, message, encodeFrame(FRAME_BODY, 1, Buffer.alloc(1))]
  ],
  "an empty body frame": [
    "an empty body frame on channel 1",
    [open, begun, encodeFrame(FRAME_BODY, 1, Buffer.alloc(0))]
  ],
  "a method before channel.open": ["basic.ack on channel 1, which is closed", [ack]],
  "a second channel.open": ["channel.open on channel 1, which is open", [open, open]],
  "a method behind its channel.close": ["basic.ack on channel 1, which is closing", [open, close, ack]],
  "a method behind its channel.close-ok": ["basic.ack on channel 1, which is closed", [open, "closes", closeOk, ack]],
  "a second channel.close": ["channel.close on channel 1, which is closing", [open, close, close]],
  "an open before the close is answered": ["channel.open on channel 1, which is closing", [open, close, open]],
  "an open before the broker's close is answered": [
    "channel.open on channel 1, whose close is not answered",
    [open, "closes", close, "answers", open]
  ],
  "a close-ok to no close": ["channel.close-ok on channel 1, which the broker has not closed", [open, closeOk]],
  "a method behind connection.close": ["basic.ack on channel 1 behind connection.close", [open, end, ack]],
  "a heartbeat behind connection.close-ok": [
    "heartbeat on channel 0 behind connection.close-ok",
    [open, endOk, encodeHeartbeat()]
  ],
  "a heartbeat on a channel": ["a heartbeat with a channel or a payload", [encodeFrame(8, 1, Buffer.alloc(0))]],
  "a frame larger than frame-max": [
    "body of 5008 bytes, where frame-max is 4096",
    [open, encodeMessage(1, "basic.publish", {}, { body: Buffer.alloc(5000) })]
  ],
  "a frame without its end": ["a frame without its end", [open.subarray(0, -1), Buffer.of(0)]],
  "a broker's method": ["a frame of type 1 that no client sends", [encodeMessage(1, "channel.open-ok")]]
}

describe("the order of a client's frames", () => {
  for (const [name, steps] of Object.entries(allowed)) {
    it(`allows ${name}`, () => {
      assert.deepStrictEqual(problemsOf(steps), [])
      assert.deepStrictEqual(problemsOf(steps, 1), [])
    })
  }
  for (const [name, [problem, steps]] of Object.entries(refused)) {
    it(`does not allow ${name}`, () => {
      assert.strictEqual(problemsOf(steps)[0]?.replace(/ \(frame \d+\)$/, ""), problem)
      assert.strictEqual(problemsOf(steps, 1)[0]?.replace(/ \(frame \d+\)$/, ""), problem)
    })
  }
})
