/**
 * Three private RabbitMQ nodes in one cluster with `pause_minority`, each of which can be killed, stopped, paused, cut
 * off from the others, and brought back. RabbitMQ 4.3 has no partition handling: a minority continues there, and
 * commits nothing.
 *
 * A node that is cut off is alone at Erlang's level only: its clients still reach it. That needs neither root nor
 * iptables, and a partition between the brokers of several data centers looks the same to a client.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { type TestBroker } from "@effect-amqp/core/testing"
import { Context, Duration, Effect, Exit, Layer, Result, Schedule, Scope } from "effect"
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

/** One node. Each of these effects completes when it is done, not when its consequences are. */
export interface Node {
  /** The name among Erlang's nodes. */
  readonly name: string
  readonly host: { readonly host: string; readonly port: number }
  /** Kills it at once. */
  readonly kill9: Effect.Effect<void, TestBrokerError>
  /** Stops it in order: it closes its clients' connections. */
  readonly stop: Effect.Effect<void, TestBrokerError>
  /** Starts it again after `kill9` or `stop`. Completes when its port for clients is open. */
  readonly start: Effect.Effect<void, TestBrokerError>
  /** Sends SIGSTOP: its sockets stay open, and it answers nothing. */
  readonly pause: Effect.Effect<void>
  /** Sends SIGCONT, but only after the other nodes have given it up. Completes when it may rejoin them. */
  readonly resume: Effect.Effect<void, TestBrokerError>
  /** Cuts the connections between this node and the others, and prevents new ones until `heal`. */
  readonly cut: Effect.Effect<void, TestBrokerError>
  /** Lets it rejoin, but only after it has stopped as a minority, on versions that do that. */
  readonly heal: Effect.Effect<void, TestBrokerError>
  /** The process and the folder, to verify that they are gone. */
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
    /**
     * Whether queues that are neither durable nor exclusive are gone when their node is down. With Khepri they are not.
     */
    readonly forgetsTransients: boolean
    /** The virtual host at the first node. For other nodes, use `hosts` of the configuration. */
    readonly url: string
    /**
     * Waits until every node has its port for clients open and knows the others, and the queues have their members.
     */
    readonly ready: Effect.Effect<void, TestBrokerError>
    /** All nodes' connections and what is on them, as one of the nodes counts them. */
    readonly census: Effect.Effect<Operations.Census, TestBrokerError>
    /** Waits for these numbers for 10 seconds. */
    readonly awaitCensus: (expected: Partial<Operations.Census>) => Effect.Effect<Operations.Census, TestBrokerError>
    /** The node that has a queue's leader now, as one of the reachable nodes knows it. */
    readonly leader: (queue: string) => Effect.Effect<Node, TestBrokerError>
  }
>()("@effect-amqp/core/test/Cluster") {}

const failed = (message: string) => new TestBrokerError({ reason: "StartFailed", message })

const installation = Effect.gen(function* () {
  if (typeof Installation.find(process.env) === "string") yield* DebianPackage.install("rabbitmq-server")
  const found = Installation.find(process.env)
  return typeof found === "string" ? yield* Effect.fail(failed(found)) : found
})

const quoted = (names: ReadonlyArray<string>) => `[${names.map((name) => `'${name}'`).join(",")}]`

interface Managed extends Node {
  readonly isPaused: boolean
}

/**
 * Whether all threads of a process are stopped: the signal reaches them one after the other, and some continue until
 * then.
 */
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
  // After a restart another process answers.
  const evaluate: Broker["evaluate"] = (erlang) => Effect.suspend(() => broker.evaluate(erlang))
  const names = (peers: ReadonlyArray<Node>) => quoted(peers.map(({ name }) => name))
  // The cookie that one node has for another must equal the cookie that the other has for it, or they stay apart.
  const refuse = (peers: ReadonlyArray<Node>) =>
    Effect.forEach(peers, (peer) => peer.evaluate(`erlang:set_cookie('${node.name}', refused).`))
  /**
   * Lets it rejoin the others after it has noticed the partition: it has lost them and, being a minority, has stopped.
   * A node that is reconnected before that continues with a Mnesia of its own, from which RabbitMQ 3.10 does not
   * recover.
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
    // Disconnects from one side only: RabbitMQ takes a disconnect from several sides at once for a partial partition.
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

/** Fast enough for tests to notice what is gone, and slow enough for a busy machine. */
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

const shown = (seen: Result.Result<unknown, TestBrokerError> | undefined) => {
  if (seen === undefined) return "no answer yet"
  return Result.isSuccess(seen) ? JSON.stringify(seen.success) : seen.failure.message
}

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
        Effect.fail(
          new TestBrokerError({
            reason: "CommandFailed",
            message: `${what} within ${Duration.format(Duration.fromInputUnsafe(within))}: ${shown(last)}`
          })
        )
    }),
    live
  )
}

// A node that is down does not answer, a paused node does not answer in time, and neither does a queue without a
// majority.
const promptly = Effect.timeoutOrElse({
  duration: "2 seconds",
  orElse: () => Effect.fail(new TestBrokerError({ reason: "CommandFailed", message: "no answer" }))
})

interface NodeView {
  readonly name: string
  /** The nodes that it sees running, itself included. */
  readonly running: number
  readonly isRunning: boolean
  /** Whether it recovers from a partition. While it does, it does not notice the next. */
  readonly isRecovering: boolean
  /** The state of its own member of each quorum queue, with the queue's members if it is the leader. */
  readonly members: ReadonlyMap<string, { readonly state: string; readonly servers: ReadonlyArray<string> }>
}

/**
 * What a node knows about itself. It asks no other node. In particular it does not ask its member of a queue for the
 * leader: after a partition, a follower of an idle queue (RabbitMQ 4.3, Ra 3.1.10) holds such a call until the leader
 * next sends something, which may be never.
 */
const viewOf = (node: Node, vhost: string): Effect.Effect<NodeView, TestBrokerError> =>
  node
    .evaluate(
      `Queues = [begin {_, _, queue, Name} = amqqueue:get_name(Q), {R, _} = amqqueue:get_pid(Q), {Name, R} end ||
         Q <- rabbit_amqqueue:list(<<"${vhost}">>), amqqueue:get_type(Q) =:= rabbit_quorum_queue],
       Member = fun(R) ->
         case {whereis(R), catch ets:lookup(ra_state, R)} of
           {Pid, [Entry]} when is_pid(Pid), element(2, Entry) =:= leader ->
             case catch ra:members({R, node()}, 1000) of
               {ok, Servers, _} -> [leader | [N || {_, N} <- Servers]];
               _ -> [unanswering]
             end;
           {Pid, [Entry]} when is_pid(Pid) -> [element(2, Entry)];
           {Pid, _} when is_pid(Pid) -> [starting];
           _ -> [missing]
         end
       end,
       Line = fun(Name, Atoms) -> [Name | [[" ", atom_to_binary(A)] || A <- Atoms]] end,
       iolist_to_binary(lists:join("\n", [
         Line(integer_to_binary(length(rabbit_nodes:all_running())),
           [rabbit:is_running(), whereis(rabbit_outside_app_process) =/= undefined]) |
         [Line(Name, Member(R)) || {Name, R} <- Queues]])).`
    )
    .pipe(
      promptly,
      Effect.map((text) => {
        const [[running, isRunning, isRecovering] = [], ...queues] = text.split("\n").map((line) => line.split(" "))
        return {
          name: node.name,
          running: Number(running),
          isRunning: isRunning === "true",
          isRecovering: isRecovering === "true",
          members: new Map(queues.map(([queue = "", state = "", ...servers]) => [queue, { state, servers }]))
        }
      })
    )

/** What is missing from a complete cluster: nothing, if it is ready. */
const missingFrom = (nodes: ReadonlyArray<Node>, vhost: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.map(
    Effect.forEach(nodes, (node) => Effect.result(viewOf(node, vhost)), { concurrency: "unbounded" }),
    (results) => {
      const views = results.flatMap((result) => (Result.isSuccess(result) ? [result.success] : []))
      return [
        ...results.flatMap((result, i) =>
          Result.isFailure(result) ? [`${nodes[i]!.name} does not answer (${result.failure.message})`] : []
        ),
        ...views.flatMap(missingFromNode),
        ...Array.from(new Set(views.flatMap(({ members }) => Array.from(members.keys())))).flatMap((queue) =>
          missingFromQueue(queue, views)
        )
      ]
    }
  )

const missingFromNode = ({ isRecovering, isRunning, name, running }: NodeView) => [
  ...(running === 3 ? [] : [`${name} sees ${running} of 3 nodes`]),
  ...(isRunning ? [] : [`${name} has stopped RabbitMQ`]),
  ...(isRecovering ? [`${name} recovers from a partition`] : [])
]

const missingFromQueue = (queue: string, views: ReadonlyArray<NodeView>) => {
  const members = views.map(({ members, name }) => ({
    name,
    ...(members.get(queue) ?? { state: "unknown", servers: [] })
  }))
  const leaders = members.filter(({ state }) => state === "leader")
  const [leader] = leaders
  return [
    ...members.flatMap(({ name, state }) =>
      state === "leader" || state === "follower" ? [] : [`the queue ${queue}: its member on ${name} is ${state}`]
    ),
    ...(leader === undefined || leaders.length > 1
      ? [`the queue ${queue} has ${leaders.length} leaders`]
      : leader.servers.length === 3
        ? []
        : [`the queue ${queue} has members only on ${leader.servers.join(", ")}`])
  ]
}

const vhost = "cluster"

const make = Effect.gen(function* () {
  const outer = yield* Effect.scope
  // An attempt that fails stops the nodes that it has started.
  const attempt = Effect.gen(function* () {
    const scope = yield* Scope.fork(outer, "parallel")
    return yield* startNodes.pipe(
      Scope.provide(scope),
      Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
    )
  })
  const nodes = yield* Effect.retry(attempt, { times: 2, while: PrivateNode.isPortTaken })
  const ready = eventually(
    "the cluster is not complete",
    "60 seconds",
    missingFrom(nodes, vhost),
    (missing) => missing.length === 0
  ).pipe(Effect.asVoid)
  /** Any node that can be asked. */
  const ask = <A>(question: (node: Node) => Effect.Effect<A, TestBrokerError>) =>
    Effect.firstSuccessOf(nodes.map((node) => promptly(question(node))))
  const census = ask((node) => Operations.census(brokerOf(node), vhost))
  yield* eventually("the nodes did not join", "60 seconds", viewOf(nodes[0], vhost), ({ running }) => running === 3)
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
      eventually(`the census: expected ${JSON.stringify(expected)}`, "10 seconds", census, (seen) =>
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

/** A private cluster, ready in some 20 seconds. It ends with the layer, and with this process, however that dies. */
export const layer: Layer.Layer<Cluster, TestBrokerError> = Layer.effect(Cluster, live(make))
