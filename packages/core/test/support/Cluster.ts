/**
 * Three private RabbitMQ nodes in one cluster with `pause_minority`, each of which can be killed, stopped, paused, cut
 * off from the others, and brought back. RabbitMQ 4.3 knows no partition handling: a minority goes on there, and commits
 * nothing.
 *
 * A node that is cut off stands alone at Erlang's level only: its clients still reach it. That takes neither root nor
 * iptables, and is what a partition between the brokers of several data centres looks like to a client.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { type TestBroker } from "@effect-amqp/core/testing"
import { Context, type Duration, Effect, Exit, Layer, Result, Schedule, Scope } from "effect"
import * as Crypto from "node:crypto"
import * as Net from "node:net"
import { fromCoordinates } from "../../src/testing/internal/access.ts"
import type { Broker } from "../../src/testing/internal/broker.ts"
import * as DebianPackage from "../../src/testing/internal/debianPackage.ts"
import * as Installation from "../../src/testing/internal/installation.ts"
import { live } from "../../src/testing/internal/liveClock.ts"
import * as Operations from "../../src/testing/internal/operations.ts"
import * as Ports from "../../src/testing/internal/ports.ts"
import * as PrivateNode from "../../src/testing/internal/privateNode.ts"
import { TestBrokerError } from "../../src/testing/TestBrokerError.ts"

/** One node. Each of these completes when it is done, not when its consequences are. */
export interface Node {
  /** Among Erlang's nodes. */
  readonly name: string
  readonly host: { readonly host: string; readonly port: number }
  /** Ends it at once. */
  readonly kill9: Effect.Effect<void, TestBrokerError>
  /** Ends it in order: it says goodbye to its clients. */
  readonly stop: Effect.Effect<void, TestBrokerError>
  /** Starts it again after `kill9` or `stop`; completes when it has its clients' port open. */
  readonly start: Effect.Effect<void, TestBrokerError>
  /** SIGSTOP: its sockets stay open, and nobody answers. */
  readonly pause: Effect.Effect<void>
  /** SIGCONT, not before the others have given it up; completes when it may come together with them again. */
  readonly resume: Effect.Effect<void, TestBrokerError>
  /** Neither this node nor the others will have anything to do with each other, until `heal`. */
  readonly cut: Effect.Effect<void, TestBrokerError>
  /** Not before it has stopped by itself, being a minority, where it does that. */
  readonly heal: Effect.Effect<void, TestBrokerError>
  /** The process and the folder, for those who want to make sure that they are gone. */
  readonly processes: TestBroker.Processes
  /** Evaluates Erlang in this node; see `TestBroker.evaluate`. */
  readonly evaluate: Broker["evaluate"]
}

/** The cluster, with a virtual host. */
export class Cluster extends Context.Service<
  Cluster,
  {
    readonly nodes: readonly [Node, Node, Node]
    /** Whether a node that is cut off ends its clients' connections. */
    readonly pausesMinority: boolean
    /** Whether queues that are neither durable nor exclusive are gone when their node is down: not of Khepri. */
    readonly forgetsTransients: boolean
    /** The virtual host at the first node. Others: by `hosts` of the configuration. */
    readonly url: string
    /** Waits until every node has its clients' port open, knows the others, and the queues have their members. */
    readonly ready: Effect.Effect<void, TestBrokerError>
    /** All nodes' connections and what is on them, counted by one of them. */
    readonly census: Effect.Effect<Operations.Census, TestBrokerError>
    /** Waits for these numbers for 10 seconds. */
    readonly awaitCensus: (expected: Partial<Operations.Census>) => Effect.Effect<Operations.Census, TestBrokerError>
    /** The node on which a queue's leader is now, as one of the nodes that can be asked knows it. */
    readonly leader: (queue: string) => Effect.Effect<Node, TestBrokerError>
  }
>()("@effect-amqp/core/test/Cluster") {}

const failed = (message: string) => new TestBrokerError({ reason: "StartFailed", message })

/** Why there can be no cluster here, if that is so: it takes `rabbitmq-server`, or leave to install it. */
export const impossible = (): string => {
  const found = Installation.find(process.env)
  if (typeof found !== "string") return ""
  const installable = DebianPackage.installable()
  return installable === true ? "" : `${found}; ${installable}`
}

const installation = Effect.gen(function* () {
  if (typeof Installation.find(process.env) === "string") yield* DebianPackage.install("rabbitmq-server")
  const found = Installation.find(process.env)
  return typeof found === "string" ? yield* Effect.fail(failed(found)) : found
})

const quoted = (names: ReadonlyArray<string>) => `[${names.map((name) => `'${name}'`).join(",")}]`

interface Managed extends Node {
  readonly isPaused: boolean
}

/** Whether each thread of a process stands still: the signal comes to them one after the other, and some go on meanwhile. */
const hasStopped = (pid: number): boolean =>
  !existsSync("/proc/self/task") ||
  readdirSync(`/proc/${pid}/task`).every((thread) =>
    /\) [Tt] /.test(readFileSync(`/proc/${pid}/task/${thread}/stat`, "latin1"))
  )

const pausesMinority = `rabbit_misc:version_compare(rabbit_misc:version(), "4.3.0", lt)`

const manage = (node: PrivateNode.PrivateNode, others: () => ReadonlyArray<Managed>): Managed => {
  let broker = fromCoordinates(node.coordinates)
  const { hostname, port } = new URL(broker.url)
  let isPaused = false
  const signal = (name: "SIGSTOP" | "SIGCONT") =>
    Effect.sync(() => {
      process.kill(broker.processes!.server, name)
      isPaused = name === "SIGSTOP"
    })
  // Another process answers after a start.
  const evaluate: Broker["evaluate"] = (erlang) => Effect.suspend(() => broker.evaluate(erlang))
  const names = (peers: ReadonlyArray<Node>) => quoted(peers.map(({ name }) => name))
  // The cookie that one node has for another must be what the other has for the one, or they stay apart.
  const refuse = (peers: ReadonlyArray<Node>) =>
    Effect.forEach(peers, (peer) => peer.evaluate(`erlang:set_cookie('${node.name}', refused).`))
  /**
   * Lets it come together with the others again, when it has noticed: has lost them and, being a minority, has stopped.
   * A node that is connected to them again before that goes on with a Mnesia of its own, and RabbitMQ 3.10 does not mend
   * that.
   */
  const comeTogether = (peers: ReadonlyArray<Node>) =>
    Effect.andThen(
      eventually(
        `${node.name} does not know that it was alone`,
        "30 seconds",
        promptly(
          evaluate(
            `Left = nodes(), [] =:= [N || N <- ${names(peers)}, lists:member(N, Left)] andalso
               (Left =/= [] orelse not (${pausesMinority}) orelse not rabbit:is_running()).`
          )
        ),
        (knows) => knows === "true"
      ),
      Effect.forEach(peers, (peer) => peer.evaluate(`erlang:set_cookie('${node.name}', erlang:get_cookie()).`))
    )
  const wakeUp = Effect.gen(function* () {
    const peers = others().filter((peer) => !peer.isPaused)
    yield* Effect.forEach(peers, (peer) =>
      eventually(
        `${peer.name} has not given ${node.name} up`,
        "30 seconds",
        peer.evaluate(`lists:member('${node.name}', nodes()).`),
        (isConnected) => isConnected === "false"
      )
    )
    yield* refuse(peers)
    yield* signal("SIGCONT")
    yield* comeTogether(peers)
  })
  return {
    name: node.name,
    host: { host: hostname, port: Number(port) },
    kill9: node.end("SIGKILL"),
    stop: node.end("SIGTERM"),
    start: Effect.map(node.startAgain, (coordinates) => {
      broker = fromCoordinates(coordinates)
    }),
    pause: Effect.andThen(
      signal("SIGSTOP"),
      Effect.sleep(1).pipe(
        Effect.repeat({ until: () => hasStopped(broker.processes!.server) }),
        Effect.timeoutOption("5 seconds"),
        Effect.asVoid
      )
    ),
    resume: wakeUp,
    // Disconnected from one side only: from several at once is what RabbitMQ takes for a partial partition.
    cut: Effect.suspend(() =>
      Effect.andThen(refuse(others()), evaluate(`[erlang:disconnect_node(N) || N <- ${names(others())}].`))
    ),
    heal: Effect.suspend(() => comeTogether(others())),
    get isPaused() {
      return isPaused
    },
    get processes() {
      return broker.processes!
    },
    evaluate
  }
}

/** Fast enough for tests to notice what is gone, slow enough for a busy machine. */
const netTick = 5

const listening = (port: number) =>
  Effect.callback<void, TestBrokerError>((resume) => {
    const socket = Net.connect({ host: "127.0.0.1", port })
    socket.once("connect", () => {
      socket.destroy()
      resume(Effect.void)
    })
    socket.once("error", (error) => resume(Effect.fail(failed(`epmd is not there: ${error.message}`))))
    return Effect.sync(() => socket.destroy())
  }).pipe(Effect.retry({ times: 300, schedule: Schedule.spaced("20 millis") }))

const startNodes = Effect.gen(function* () {
  const found = yield* installation
  const cookie = PrivateNode.cookie()
  const [epmdPort = 0] = yield* Ports.free(1)
  const id = Crypto.randomBytes(6).toString("hex")
  const names = [1, 2, 3].map((number) => `effect-amqp-${id}-${number}`)
  const config = [
    "cluster_formation.peer_discovery_backend = classic_config",
    ...names.map((name, i) => `cluster_formation.classic_config.nodes.${i + 1} = ${name}@localhost`),
    "cluster_partition_handling = pause_minority",
    `net_ticktime = ${netTick}`
  ]
  const nodes: Array<Managed> = []
  const start = (name: string, i: number) =>
    PrivateNode.make(found, "binary", { config }, { name, cookie, epmdPort, hasEpmd: i === 0 }).pipe(
      Effect.map((node) => {
        nodes[i] = manage(node, () => nodes.filter((_, other) => other !== i))
      })
    )
  yield* Effect.forEach(
    names,
    // A node that finds no epmd starts one of its own, which would outlive it.
    (name, i) => (i === 0 ? start(name, i) : Effect.andThen(listening(epmdPort), start(name, i))),
    { concurrency: "unbounded", discard: true }
  )
  return nodes as unknown as readonly [Node, Node, Node]
})

const eventually = <A>(
  what: string,
  within: Duration.Input,
  look: Effect.Effect<A, TestBrokerError>,
  isWanted: (seen: A) => boolean
) => {
  let last: Result.Result<A, TestBrokerError> | undefined
  return Effect.result(look).pipe(
    Effect.map((seen) => (last = seen)),
    Effect.repeat({
      until: (seen) => Result.isSuccess(seen) && isWanted(seen.success),
      schedule: Schedule.spaced("50 millis")
    }),
    Effect.flatMap(Effect.fromResult),
    Effect.timeoutOrElse({
      duration: within,
      orElse: () =>
        Effect.fail(new TestBrokerError({ reason: "CommandFailed", message: `${what}: ${JSON.stringify(last)}` }))
    }),
    live
  )
}

// A node that is down does not answer, one that is paused not in time; a queue that has lost its majority neither.
const promptly = Effect.timeoutOrElse({
  duration: "2 seconds",
  orElse: () => Effect.fail(new TestBrokerError({ reason: "CommandFailed", message: "no answer" }))
})

// While RabbitMQ still ends the recovery from one partition, it does not notice the next.
const isReady = (node: Node, vhost: string) =>
  node
    .evaluate(
      `Members = [begin {_, _, queue, Name} = amqqueue:get_name(Q), _ = Name, {R, _} = amqqueue:get_pid(Q),
         case ra:members({R, node()}, 1000) of
           {ok, Servers, {_, Leader}} -> rabbit:is_running(Leader) andalso lists:all(fun({_, N}) ->
               is_pid(rpc:call(N, erlang, whereis, [R], 1000)) end, Servers) andalso length(Servers) =:= 3;
           _ -> false
         end
       end || Q <- rabbit_amqqueue:list(<<"${vhost}">>), amqqueue:get_type(Q) =:= rabbit_quorum_queue],
       {length(rabbit_nodes:all_running()), rabbit:is_running() andalso whereis(rabbit_outside_app_process) =:= undefined,
         lists:all(fun(M) -> M end, Members)}.`
    )
    .pipe(promptly)

const vhost = "cluster"

const make = Effect.gen(function* () {
  const outer = yield* Effect.scope
  // An attempt that fails takes along the nodes that it has started.
  const attempt = Effect.gen(function* () {
    const scope = yield* Scope.fork(outer, "parallel")
    return yield* startNodes.pipe(
      Scope.provide(scope),
      Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
    )
  })
  const nodes = yield* Effect.retry(attempt, { times: 2, while: PrivateNode.isPortTaken })
  const ready = Effect.forEach(nodes, (node) =>
    eventually(
      `the cluster is not whole for ${node.name}`,
      "60 seconds",
      isReady(node, vhost),
      (seen) => seen === "{3,true,true}"
    )
  ).pipe(Effect.asVoid)
  /** Whichever can be asked. */
  const ask = <A>(question: (node: Node) => Effect.Effect<A, TestBrokerError>) =>
    Effect.firstSuccessOf(nodes.map((node) => promptly(question(node))))
  const census = ask((node) => Operations.census(brokerOf(node), vhost))
  yield* eventually("the nodes did not join", "60 seconds", isReady(nodes[0], vhost), (seen) => seen.startsWith("{3,"))
  yield* Operations.addVhost(brokerOf(nodes[0]), vhost, "guest")
  yield* ready
  const answers = (erlang: string) => Effect.map(nodes[0].evaluate(erlang), (text) => text === "true")
  return Cluster.of({
    nodes,
    pausesMinority: yield* answers(`${pausesMinority}.`),
    forgetsTransients: yield* answers(
      `not (erlang:function_exported(rabbit_khepri, is_enabled, 0) andalso rabbit_khepri:is_enabled()) andalso ${pausesMinority}.`
    ),
    url: `amqp://guest:guest@${nodes[0].host.host}:${nodes[0].host.port}/${vhost}`,
    ready,
    census,
    awaitCensus: (expected) =>
      eventually(`the census was to be ${JSON.stringify(expected)}`, "10 seconds", census, (seen) =>
        Object.entries(expected).every(([key, value]) => seen[key as keyof Operations.Census] === value)
      ),
    leader: (queue) =>
      ask((node) =>
        node.evaluate(
          `{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"${vhost}">>, queue, <<"${queue}">>)), {R, _} = amqqueue:get_pid(Q),
           {ok, _, {_, Leader}} = ra:members({R, node()}, 1000), atom_to_binary(Leader).`
        )
      ).pipe(
        Effect.flatMap((name) => {
          const node = nodes.find((node) => node.name === name)
          return node === undefined ? Effect.fail(failed(`no node ${name}`)) : Effect.succeed(node)
        })
      )
  })
})

const brokerOf = (node: Node) => ({ evaluate: node.evaluate }) as Broker

/**
 * A cluster of one's own, ready in some 20 seconds; gone when the layer is, and when this process is, however it dies.
 */
export const layer: Layer.Layer<Cluster, TestBrokerError> = Layer.effect(Cluster, live(make))
