/** Runtimes whose sockets do not pass on what they read as Node.js does are refused, with advice. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import net from "node:net"
import { configOf, connecting, quietly } from "./support/amqp.ts"
import * as ScriptedBroker from "./support/ScriptedBroker.ts"

type Onread = net.OnReadOpts

const runtimes: Record<string, (onread: Onread) => Onread | undefined> = {
  // Without the option the socket reads as usual, and amqplib opens a connection that the library cannot observe.
  "do not have the option onread": () => undefined,
  // Bun 1.4.
  "call back without the socket": ({ buffer, callback }) => ({
    buffer,
    callback: (bytesRead, bytes) => callback(bytesRead, bytes)
  })
}

/** Sockets of another runtime, until the scope closes. */
const replaceConnect = (change: (onread: Onread) => Onread | undefined) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { connect } = net
      const changed = ({ onread, ...options }: net.NetConnectOpts, connected: () => void) => {
        const given = onread === undefined ? undefined : change(onread)
        return connect({ ...options, ...(given === undefined ? undefined : { onread: given }) }, connected)
      }
      net.connect = changed as typeof net.connect
      return connect
    }),
    (connect) =>
      Effect.sync(() => {
        net.connect = connect
      })
  )

describe("A connection with sockets that", () => {
  for (const [which, change] of Object.entries(runtimes)) {
    it.live(`${which} fails at once, says that Node.js is needed, and leaves no socket`, () =>
      Effect.gen(function* () {
        const broker = yield* ScriptedBroker.make()
        yield* replaceConnect(change)
        const reason = yield* connecting(configOf(broker.url))
        assert.match(
          reason.message,
          /this runtime does not support the socket option onread of node:net: use Node\.js$/
        )
        assert.isFalse(reason.isRetryable)
        yield* broker.socketsClosed
      }).pipe(Effect.scoped, quietly)
    )
  }
})
