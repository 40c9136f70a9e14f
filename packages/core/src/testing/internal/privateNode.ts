import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Crypto from "node:crypto"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Url from "node:url"
import { TestBrokerError } from "../TestBrokerError.ts"
import type { Cli, Coordinates, Origin } from "./broker.ts"
import * as ControlServer from "./controlServer.ts"
import type { Installation } from "./installation.ts"
import * as Ports from "./ports.ts"
import * as SupervisorProcess from "./supervisorProcess.ts"
import type { Event, Plan } from "./supervisor.ts"

/**
 * Options of a private node.
 *
 * **When to use**
 *
 * Use with `layerPrivate` for a broker with another configuration, or with plugins.
 *
 * @see {@link layerPrivate} for the function that takes these options
 * @category options
 * @since 0.1.0
 */
export interface NodeOptions {
  /** Lines of `rabbitmq.conf`, after those that every private node has. Default: none. */
  readonly config?: ReadonlyArray<string> | undefined
  /** Plugins to enable, such as `rabbitmq_auth_mechanism_ssl`. Default: none. */
  readonly plugins?: ReadonlyArray<string> | undefined
}

/** The settings that the nodes of a cluster share, and the name of this node. */
export interface Membership {
  readonly name: string
  readonly cookie: string
  readonly epmdPort: number
  /** Whether this node starts the epmd that all nodes of the cluster use. */
  readonly hasEpmd: boolean
}

const failed = (message: string) => new TestBrokerError({ reason: "StartFailed", message })

const supervisorFile = Url.fileURLToPath(
  new URL(`./supervisor${Path.extname(Url.fileURLToPath(import.meta.url))}`, import.meta.url)
)

// Variables that would redirect the node to the system's broker or change its Erlang, and variables that do not concern
// it.
const foreign = /^(?:RABBITMQ_|ERL_|NODE_|AMQP_|VITEST|EFFECT_AMQP_)/

const inherited = (env: NodeJS.ProcessEnv): Record<string, string> =>
  Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) => (value === undefined || foreign.test(name) ? [] : [[name, value]]))
  )

const alone = Effect.map(Ports.free(1), ([epmdPort = 0]): Membership => ({
  name: `effect-amqp-${Crypto.randomBytes(6).toString("hex")}`,
  cookie: cookie(),
  epmdPort,
  hasEpmd: true
}))

/** A secret that Erlang nodes share. */
export const cookie = (): string => Crypto.randomBytes(18).toString("hex")

const draw = Effect.fnUntraced(function* (installation: Installation, options: NodeOptions, membership: Membership) {
  const { epmdPort: epmd, name } = membership
  const token = Crypto.randomBytes(24).toString("hex")
  const [amqp = 0, distribution = 0, ...cli] = yield* Ports.free(3)
  const directory = Path.join(Os.tmpdir(), name)
  const at = (name: string) => Path.join(directory, name)
  const node = `${name}@localhost`
  const loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
  const env: Record<string, string> = {
    PATH: installation.path,
    HOME: at("home"),
    LC_ALL: "C.UTF-8",
    RABBITMQ_CONF_ENV_FILE: "/dev/null",
    RABBITMQ_NODENAME: node,
    RABBITMQ_NODE_IP_ADDRESS: "127.0.0.1",
    RABBITMQ_NODE_PORT: String(amqp),
    RABBITMQ_DIST_PORT: String(distribution),
    RABBITMQ_MNESIA_BASE: at("data"),
    RABBITMQ_LOG_BASE: at("log"),
    RABBITMQ_PID_FILE: at("pid"),
    RABBITMQ_CONFIG_FILE: at("rabbitmq.conf"),
    RABBITMQ_ADVANCED_CONFIG_FILE: at("advanced.config"),
    RABBITMQ_CONFIG_FILES: at("conf.d/*.conf"),
    RABBITMQ_ENABLED_PLUGINS_FILE: at("enabled_plugins"),
    RABBITMQ_FEATURE_FLAGS_FILE: at("feature_flags"),
    RABBITMQ_GENERATED_CONFIG_DIR: at("config"),
    RABBITMQ_CTL_DIST_PORT_MIN: String(cli[0]),
    RABBITMQ_CTL_DIST_PORT_MAX: String((cli[0] ?? 0) + 40),
    RABBITMQ_CTL_ERL_ARGS: loopback,
    ERL_EPMD_PORT: String(epmd),
    ERL_EPMD_ADDRESS: "127.0.0.1",
    ERL_CRASH_DUMP_SECONDS: "0",
    ERL_INETRC: at("inetrc"),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: `+S 2:2 ${loopback}`
  }
  const plan: Plan = {
    directory,
    files: {
      "home/.erlang.cookie": { content: membership.cookie, mode: 0o400 },
      "rabbitmq.conf": {
        mode: 0o600,
        content: [
          `listeners.tcp.1 = 127.0.0.1:${amqp}`,
          "loopback_users = none",
          "log.file.level = info",
          "disk_free_limit.absolute = 50MB",
          "vm_memory_high_watermark.absolute = 2GB",
          ...(options.config ?? []),
          ""
        ].join("\n")
      },
      // The node's name must resolve, and not every /etc/hosts contains it.
      inetrc: { content: '{host, {127,0,0,1}, ["localhost"]}.\n{lookup, [file, native]}.\n', mode: 0o600 },
      enabled_plugins: { content: `[${(options.plugins ?? []).join(",")}].\n`, mode: 0o600 },
      "guard.erl": { content: ControlServer.guard({ epmdPort: epmd, directory }), mode: 0o600 },
      "control.erl": { content: ControlServer.script({ token, port: 0, address: "127.0.0.1" }), mode: 0o600 }
    },
    // With this variable the script exec()s erl instead of waiting for it, so that the known pid is the node's.
    // `-noinput` then keeps the Erlang shell off the standard input, which belongs to the guard.
    env: { ...inherited(process.env), ...env, RABBITMQ_ALLOW_INPUT: "1" },
    // epmd runs in the foreground, so that the supervisor has its pid and can end it; relaxed, so that the guard may
    // end it.
    ...(membership.hasEpmd && {
      epmd: [installation.epmd, "-port", String(epmd), "-address", "127.0.0.1", "-relaxed_command_check"]
    }),
    server: [
      Path.join(installation.scripts, "rabbitmq-server"),
      "-noinput",
      ...["guard.erl", "control.erl"].flatMap((name) => ["-eval", `{ok,_}=file:script("${at(name)}").`])
    ],
    ready: ControlServer.ready.source
  }
  const ctl: Cli = { command: Path.join(installation.scripts, "rabbitmqctl"), args: ["-q", "-n", node], env }
  return { plan, amqp, token, ctl }
})

/** Starts a supervisor and writes the plan to it. Its pipes do not keep this process alive once the node is up. */
const startSupervisor = (plan: Plan) => {
  const child = SupervisorProcess.spawn(supervisorFile)
  child.stdin.write(`${JSON.stringify(plan)}\n`)
  return child
}

type Supervisor = SupervisorProcess.SupervisorProcess

// The guard inside the node then does the rest.
const stop = (child: Supervisor) => SupervisorProcess.stop(child, "10 seconds")

type Ready = Extract<Event, { readonly type: "ready" }>

/** Runs `action` and returns the supervisor's next event. The supervisor's own end is an `exit` too. */
const nextEvent = (child: Supervisor, action: () => void) =>
  Effect.callback<Event>((resume) => {
    const forget = () => {
      child.removeListener("exit", onExit)
      child.lines.removeListener("line", onLine)
    }
    const settle = (event: Event) => {
      forget()
      resume(Effect.succeed(event))
    }
    const onExit = (code: number | null) =>
      settle({ type: "exit", output: `its supervisor ended with code ${code ?? "none"}` })
    // `supervisor.ts` of the same version has written this.
    const onLine = (line: string) => settle(JSON.parse(line) as Event)
    if (child.pid === undefined) return settle({ type: "exit", output: `${process.execPath} cannot be started` })
    if (SupervisorProcess.isOver(child)) return onExit(child.exitCode)
    child.on("exit", onExit)
    child.lines.on("line", onLine)
    SupervisorProcess.setKeepsAlive(child, true)
    action()
    return Effect.sync(forget)
  }).pipe(
    Effect.onExit(() => Effect.sync(() => SupervisorProcess.setKeepsAlive(child, false))),
    Effect.timeoutOrElse({
      duration: "60 seconds",
      orElse: () => Effect.fail(failed("The private rabbitmq-server did not start or end within 60 seconds"))
    })
  )

const awaitReady = (child: Supervisor, action = () => {}) =>
  Effect.flatMap(nextEvent(child, action), (event) =>
    event.type === "ready"
      ? Effect.succeed(event)
      : Effect.fail(failed(`The private rabbitmq-server did not start:\n${event.output.trim()}`))
  )

/** A private node that can be restarted after it has ended. */
export interface PrivateNode {
  /** Its Erlang node name. */
  readonly name: string
  readonly coordinates: Coordinates
  /**
   * Restarts the server, which must have been killed or stopped: as another process, with the data that it has stored.
   */
  readonly startAgain: Effect.Effect<Coordinates, TestBrokerError>
  /** Sends a signal that ends the server, and waits for its end. */
  readonly end: (signal: "SIGKILL" | "SIGTERM") => Effect.Effect<void, TestBrokerError>
}

/** Starts a node, on its own or as a member of a cluster; see {@link start}. */
export const make = Effect.fnUntraced(function* (
  installation: Installation,
  origin: Origin,
  options: NodeOptions,
  membership: Membership
): Effect.fn.Return<PrivateNode, TestBrokerError, Scope.Scope> {
  const { amqp, ctl, plan, token } = yield* draw(installation, options, membership)
  const supervisor = yield* Effect.acquireRelease(
    Effect.sync(() => startSupervisor(plan)),
    stop
  )
  const coordinatesOf = (ready: Ready): Coordinates => ({
    origin,
    url: `amqp://guest:guest@127.0.0.1:${amqp}`,
    description: `a private rabbitmq-server from ${installation.scripts} (pid ${ready.server})`,
    control: { host: "127.0.0.1", port: ready.port, token },
    cli: ctl,
    processes: {
      supervisor: supervisor.pid ?? 0,
      server: ready.server,
      epmd: ready.epmd,
      directory: plan.directory
    }
  })
  let ready = yield* Effect.tapError(awaitReady(supervisor), () => stop(supervisor))
  return {
    name: `${membership.name}@localhost`,
    coordinates: coordinatesOf(ready),
    startAgain: awaitReady(supervisor, () => supervisor.stdin.write("again\n")).pipe(
      Effect.map((again) => coordinatesOf((ready = again)))
    ),
    end: (signal) => Effect.asVoid(nextEvent(supervisor, () => process.kill(ready.server, signal)))
  }
})

/**
 * Whether a start failed because another process had taken a port after the check; epmd then ends without a message.
 */
export const isPortTaken = (error: TestBrokerError): boolean => /eaddrinuse|in.use|epmd ended/i.test(error.message)

/**
 * Starts a private node, on 127.0.0.1 and free ports, with its own epmd, cookie and temporary folder, ready in 4 to 8
 * seconds. When the scope closes, the node and its folder are removed. This also happens when this process dies, for
 * whatever reason.
 */
export const start = (
  installation: Installation,
  origin: Origin,
  options: NodeOptions
): Effect.Effect<Coordinates, TestBrokerError, Scope.Scope> =>
  alone.pipe(
    Effect.flatMap((membership) => make(installation, origin, options, membership)),
    Effect.map(({ coordinates }) => coordinates),
    Effect.retry({ times: 2, while: isPortTaken })
  )
