import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as FileSystem from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { TestBrokerError } from "../TestBrokerError.ts"
import { fromCoordinates } from "./access.ts"
import type { Cli, Coordinates } from "./broker.ts"

const unreachable = (message: string) => new TestBrokerError({ reason: "Unreachable", message })

// `new URL` includes its input, with the password, in its error.
const parse = (text: string) => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  return url !== undefined && /^amqps?:$/.test(url.protocol) && url.hostname !== ""
    ? Effect.succeed(url)
    : Effect.fail(unreachable("AMQP_URL: expected a URL such as amqp://guest:guest@localhost:5672"))
}

const portOf = (url: URL) => (url.port !== "" ? Number(url.port) : url.protocol === "amqps:" ? 5671 : 5672)

const hostOf = (url: URL) => url.hostname.replace(/^\[(.*)\]$/, "$1")

const probe = (host: string, port: number) =>
  Effect.callback<void, TestBrokerError>((resume) => {
    const socket = Net.connect({ host, port })
    socket.once("connect", () => resume(Effect.void))
    socket.once("error", (error) =>
      resume(Effect.fail(unreachable(`Cannot connect to AMQP_URL (${host}:${port}): ${error.message}`)))
    )
    return Effect.sync(() => socket.destroy())
  }).pipe(
    Effect.timeoutOrElse({
      duration: "10 seconds",
      orElse: () => Effect.fail(unreachable(`Cannot connect to AMQP_URL (${host}:${port}) within 10 seconds`))
    })
  )

const onPath = (name: string) =>
  [...(process.env["PATH"] ?? "").split(Path.delimiter), "/usr/local/sbin", "/usr/sbin"]
    .map((folder) => Path.join(folder, name))
    .find((path) => FileSystem.existsSync(path))

/** The `rabbitmqctl` of this machine's broker, if that broker listens at the URL. */
const localCli = Effect.fnUntraced(function* (host: string, port: number) {
  const command = /^(?:localhost|127\.|::1$)/.test(host) ? onPath("rabbitmqctl") : undefined
  if (command === undefined) return undefined
  const cli: Cli = { command, args: ["-q"], env: "inherit" }
  const listens = yield* fromCoordinates({ origin: "url", url: "", description: "", cli })
    .evaluate(`lists:member(${port}, [element(6, L) || L <- rabbit_networking:active_listeners()]).`)
    .pipe(
      Effect.timeout("15 seconds"),
      Effect.catch(() => Effect.succeed("false"))
    )
  return listens === "true" ? cli : undefined
})

const givenCli = (): Cli | undefined => {
  const [command, ...args] = (process.env["AMQP_TEST_RABBITMQCTL"] ?? "").split(/\s+/).filter((word) => word !== "")
  return command === undefined ? undefined : { command, args: [...args, "-q"], env: "inherit" }
}

/** Connects to the external broker at a URL: nothing is started, and nothing is ended. */
export const connect = Effect.fnUntraced(function* (
  text: string
): Effect.fn.Return<Coordinates, TestBrokerError, Scope.Scope> {
  const url = yield* parse(text)
  yield* probe(hostOf(url), portOf(url))
  const cli = givenCli() ?? (yield* localCli(hostOf(url), portOf(url)))
  return { origin: "url", url: text, description: `the broker at AMQP_URL (${url.host})`, cli }
})
