/** Services that are restarted one after another behind one address, and clients that send requests all the time. */
import { Deferred, Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { Agent, request } from "node:http"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { resolve } from "node:path"
import { environment } from "../../../core/test/support/environment.ts"

// --- A service in its own process ---

export interface Instance {
  readonly port: number
  /** Sends SIGTERM, and waits until the process has ended. */
  readonly stop: Effect.Effect<number | null>
  readonly output: () => string
}

/** Starts a program of `programs`, or a file. The program stops with the scope at the latest. */
export const start = (
  env: Record<string, string>,
  name = "publishing.ts",
  flags: ReadonlyArray<string> = []
): Effect.Effect<Instance, Error, Scope.Scope> =>
  Effect.gen(function* () {
    const program = resolve(import.meta.dirname, "..", "programs", name)
    const child = spawn(process.execPath, ["--conditions=@effect-amqp/source", ...flags, program], {
      env: { ...environment(), ...env },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let output = ""
    const listening = yield* Deferred.make<number, Error>()
    const onOutput = (chunk: Buffer) => {
      output += chunk.toString()
      const port = /listening on http:\/\/127\.0\.0\.1:(\d+)/.exec(output)?.[1]
      if (port !== undefined) Deferred.doneUnsafe(listening, Effect.succeed(Number(port)))
    }
    child.stdout.on("data", onOutput)
    child.stderr.on("data", onOutput)
    const closed = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)))
    void closed.then(() => Deferred.doneUnsafe(listening, Effect.fail(new Error(`it ended: ${output}`))))
    const stop = Effect.suspend(() => {
      child.kill("SIGTERM")
      return Effect.promise(() => closed)
    })
    yield* Effect.addFinalizer(() => stop)
    return { port: yield* Deferred.await(listening), stop, output: () => output }
  })

// --- The load balancer ---

/** A TCP switch. New connections go to the port that is set. Existing ones keep their target. */
export const makeSwitch: Effect.Effect<{ port: number; readonly to: (port: number) => void }, never, Scope.Scope> =
  Effect.gen(function* () {
    let target = 0
    const sockets = new Set<Socket>()
    const server = createServer((client) => {
      const upstream = connect(target, "127.0.0.1")
      for (const [one, other] of [
        [client, upstream],
        [upstream, client]
      ] as const) {
        sockets.add(one)
        one.setNoDelay(true)
        one.on("error", () => other.destroy())
        one.on("close", () => {
          sockets.delete(one)
          other.end()
        })
      }
      client.pipe(upstream)
      upstream.pipe(client)
    })
    yield* Effect.addFinalizer(() =>
      Effect.callback<void>((resume) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => resume(Effect.void))
      })
    )
    const port = yield* Effect.callback<number>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed((server.address() as AddressInfo).port)))
    })
    return {
      port,
      to: (port: number) => {
        target = port
      }
    }
  })

// --- Clients ---

type Outcome =
  | { readonly _tag: "Answered"; readonly status: number; readonly reused: boolean; readonly closes: boolean }
  | { readonly _tag: "Failed"; readonly code: string; readonly reused: boolean }

const post = (agent: Agent, port: number, path: string): Promise<Outcome> =>
  new Promise((resolve) => {
    const asking = request({ host: "127.0.0.1", port, path, method: "POST", agent, timeout: 10_000 }, (response) => {
      response.resume()
      const closes = response.headers.connection === "close"
      response.once("end", () =>
        resolve({ _tag: "Answered", status: response.statusCode ?? 0, reused: asking.reusedSocket, closes })
      )
      response.once("error", () => resolve({ _tag: "Failed", code: "TRUNCATED", reused: asking.reusedSocket }))
    })
    asking.once("timeout", () => asking.destroy(Object.assign(new Error("no answer"), { code: "NO_ANSWER" })))
    asking.once("error", (error) =>
      resolve({ _tag: "Failed", code: String(Object(error).code), reused: asking.reusedSocket })
    )
    asking.end()
  })

/**
 * Whether a client may send a request again. It may do so without an answer on a reused connection, because the server
 * may have closed it before it read the request (RFC 9112, section 9.3.1; Node's documentation of `reusedSocket`), if
 * the request was not sent at all, and after a 503.
 */
const isRetriable = (outcome: Outcome) =>
  outcome._tag === "Answered"
    ? outcome.status === 503
    : outcome.code === "ECONNREFUSED" || (outcome.reused && outcome.code === "ECONNRESET")

export interface Tally {
  /** The ids that were answered with success. */
  readonly answered: Set<string>
  /** Number of requests that were sent again. */
  retried: number
  /** Outcomes of requests that a client may not send again. */
  readonly failed: Array<Outcome>
  /** Number of answers with `Connection: close`. */
  letGo: number
}

/** Clients that send one request after another until they are stopped, each on its own keep-alive connection. */
export const makeClients = (count: number, port: number) =>
  Effect.gen(function* () {
    const tally: Tally = { answered: new Set(), retried: 0, failed: [], letGo: 0 }
    const until = new AbortController()
    const client = async (name: number) => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 })
      for (let n = 0; !until.signal.aborted; n++) {
        const id = `${name}-${n}`
        for (;;) {
          const outcome = await post(agent, port, `/messages/${id}`)
          if (outcome._tag === "Answered" && outcome.closes) tally.letGo++
          if (outcome._tag === "Answered" && outcome.status === 202) {
            tally.answered.add(id)
            break
          }
          if (!isRetriable(outcome)) {
            tally.failed.push(outcome)
            break
          }
          tally.retried++
        }
      }
      agent.destroy()
    }
    const clients = Array.from({ length: count }, (_, name) => client(name))
    const stop = Effect.suspend(() => {
      until.abort()
      return Effect.promise(() => Promise.all(clients))
    })
    yield* Effect.addFinalizer(() => stop)
    return { tally, stop }
  })
