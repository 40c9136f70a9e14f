import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Crypto from "node:crypto"
import * as Net from "node:net"
import { TestBrokerError } from "../TestBrokerError.ts"
import type { Coordinates } from "./broker.ts"

/**
 * The environment variable with the address of the lobby, through which the processes of a test run share one broker.
 * The run's main process listens there, and starts the broker at the first request of a worker. A run without broker
 * tests therefore starts no broker.
 */
const variable = "EFFECT_AMQP_TEST_LOBBY"

type Answer = { readonly coordinates: Coordinates } | { readonly error: Pick<TestBrokerError, "reason" | "message"> }

/** Opens the lobby and writes its address into the environment, which workers inherit. */
export const open = Effect.fnUntraced(function* (
  start: Effect.Effect<Coordinates, TestBrokerError, Scope.Scope>
): Effect.fn.Return<void, never, Scope.Scope> {
  // A nested run uses the lobby of the outer run.
  if (process.env[variable] !== undefined) return
  const token = Crypto.randomBytes(24).toString("hex")
  const scope = yield* Effect.scope
  let starting: Fiber.Fiber<Answer> | undefined
  const ask = () => {
    starting ??= Effect.runFork(
      start.pipe(
        Scope.provide(scope),
        Effect.map((coordinates): Answer => ({ coordinates })),
        Effect.catch(({ message, reason }) => Effect.succeed<Answer>({ error: { message, reason } }))
      )
    )
    return Effect.runPromise(Fiber.join(starting))
  }
  const server = yield* Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer((socket) => {
        socket.setEncoding("utf8")
        socket.on("error", () => socket.destroy())
        socket.once("data", (line) => {
          if (String(line).trim() !== token) socket.destroy()
          else
            ask().then(
              (answer) => socket.end(JSON.stringify(answer)),
              () => socket.destroy()
            )
        })
      })
      server.listen({ port: 0, host: "127.0.0.1" }, () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.gen(function* () {
        delete process.env[variable]
        // A broker that is still starting must not outlive the run.
        if (starting !== undefined) yield* Fiber.interrupt(starting)
        yield* Effect.callback<void>((resume) => {
          server.close(() => resume(Effect.void))
        })
      })
  )
  const address = server.address()
  process.env[variable] = `${typeof address === "object" ? address?.port : 0}:${token}`
})

/** Requests the broker of this run from its lobby; `undefined` if the run has no lobby. */
export const ask: Effect.Effect<Coordinates, TestBrokerError> | undefined = (() => {
  const [port, token] = (process.env[variable] ?? "").split(":")
  if (token === undefined) return undefined
  return Effect.callback<Coordinates, TestBrokerError>((resume) => {
    let text = ""
    const gone = () =>
      resume(
        Effect.fail(
          new TestBrokerError({ reason: "StartFailed", message: "The test run ended before its broker was available" })
        )
      )
    const socket = Net.connect({ host: "127.0.0.1", port: Number(port) }, () => socket.write(`${token}\n`))
    socket.setEncoding("utf8")
    socket.on("data", (chunk) => (text += String(chunk)))
    socket.on("error", gone)
    socket.on("close", () => {
      if (text === "") return gone()
      // `open` of the same version has written this.
      const answer = JSON.parse(text) as Answer
      resume(
        "coordinates" in answer ? Effect.succeed(answer.coordinates) : Effect.fail(new TestBrokerError(answer.error))
      )
    })
    return Effect.sync(() => socket.destroy())
  })
})()
