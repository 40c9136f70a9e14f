import * as Effect from "effect/Effect"
import * as Buffer from "node:buffer"
import * as Net from "node:net"
import { TestBrokerError } from "../TestBrokerError.ts"
import type { Control } from "./broker.ts"

const failed = (message: string) => new TestBrokerError({ reason: "CommandFailed", message })

/**
 * Evaluates Erlang expressions inside the broker and returns the value of the last one: a binary unchanged, any other
 * term as Erlang prints it. The source ends with a full stop. Each evaluation has its own short connection, so that
 * nothing stays open between two of them.
 */
export const evaluate = (control: Control, erlang: string): Effect.Effect<string, TestBrokerError> =>
  Effect.callback((resume) => {
    const chunks: Array<Uint8Array> = []
    const socket = Net.connect({ host: control.host, port: control.port, noDelay: true })
    const request = Buffer.Buffer.from(control.token + erlang)
    const head = Buffer.Buffer.alloc(4)
    head.writeUInt32BE(request.length)
    socket.on("connect", () => socket.write(Buffer.Buffer.concat([head, request])))
    socket.on("data", (chunk: Uint8Array) => chunks.push(chunk))
    socket.on("error", (error) => resume(Effect.fail(failed(`The broker's node does not respond: ${error.message}`))))
    socket.on("close", () => {
      const answer = Buffer.Buffer.concat(chunks)
      if (answer.length < 5 || answer.length < 4 + answer.readUInt32BE(0)) {
        return resume(Effect.fail(failed("The broker's node closed the connection during an evaluation")))
      }
      const value = answer.toString("utf8", 5)
      resume(answer[4] === 0x2b ? Effect.succeed(value) : Effect.fail(failed(`${value}\nin ${erlang.trim()}`)))
    })
    return Effect.sync(() => socket.destroy())
  })
