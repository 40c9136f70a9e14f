import * as Effect from "effect/Effect"
import { TestBrokerError } from "../TestBrokerError.ts"
import type { Broker } from "./broker.ts"
import type { Command } from "./memory/standalone.ts"

/**
 * What a virtual host contains at the broker, counted by the broker's processes themselves and not by their statistics.
 *
 * **When to use**
 *
 * Use with `awaitCensus` and `census` of a `TestBroker` to verify that a client leaves nothing behind.
 *
 * @category models
 * @since 0.1.0
 */
export interface Census {
  /** Open connections. */
  readonly connections: number
  /** Open channels. */
  readonly channels: number
  /** Consumers on all channels. */
  readonly consumers: number
  /** Deliveries that no client has settled yet. */
  readonly unacked: number
  /** Publishes that the broker has not confirmed yet. */
  readonly unconfirmed: number
  /** Queues, except those that are being deleted or whose node is down. */
  readonly queues: number
  /** Messages in all queues, delivered or not. */
  readonly messages: number
}

/**
 * A queue of a virtual host, and its counts.
 *
 * **When to use**
 *
 * Use with `queues` of a `TestBroker` to verify what a queue contains.
 *
 * @category models
 * @since 0.1.0
 */
export interface QueueCensus {
  /** The queue's name. */
  readonly name: string
  /** Messages in the queue, delivered or not. */
  readonly messages: number
  /** Messages that are not delivered yet. */
  readonly ready: number
  /** Deliveries that no client has settled yet. */
  readonly unacked: number
  readonly consumers: number
}

// A binary literal is written as its bytes, so that no text can end the literal.
const binary = (text: string) => `<<${[...new TextEncoder().encode(text)].join(",")}>>`

const connectionsOf = (vhost: string) => `
  [P || [{pid, P}, {vhost, V}] <- rabbit_networking:connection_info_all([pid, vhost]), V =:= ${binary(vhost)}]
`

// The counts of quorum queues in `info_all` are statistics, up to 5 seconds old, so their leaders are queried. RabbitMQ 4
// expects the query as a tuple, and refuses a function before it sends anything. RabbitMQ 3 expects a function, and a
// tuple would crash the leader. A message that is being dead-lettered belongs to the total only.
const exactRow = `fun(Row) ->
    try
      {ok, Queue} = rabbit_amqqueue:lookup(proplists:get_value(name, Row)),
      rabbit_quorum_queue = amqqueue:get_type(Queue),
      Leader = amqqueue:get_pid(Queue),
      Count = fun(Name) ->
        {ok, {_, N}, _} =
          try ra:leader_query(Leader, fun rabbit_fifo:Name/1)
          catch error:function_clause -> ra:leader_query(Leader, {rabbit_fifo, Name, []})
          end,
        N
      end,
      Unacked = Count(query_messages_checked_out),
      Total = Count(query_messages_total),
      [{messages, Total}, {messages_ready, Count(query_messages_ready)}, {messages_unacknowledged, Unacked} | Row]
    catch _:_ -> Row
    end
  end`

// Of a queue that is being deleted, or whose node is down, the broker returns only the name.
const queueRows = (vhost: string) => `
  [(${exactRow})(Q) || Q <- rabbit_amqqueue:info_all(${binary(vhost)},
              [name, messages, messages_ready, messages_unacknowledged, consumers]),
        is_integer(proplists:get_value(messages, Q)), is_integer(proplists:get_value(consumers, Q))]
`

const decode = <A>(text: string) =>
  Effect.try({
    // The expressions below have written this.
    try: () => JSON.parse(text) as A,
    catch: () =>
      new TestBrokerError({ reason: "CommandFailed", message: `Evaluation in the broker: expected JSON, got ${text}` })
  })

/** Evaluates Erlang, or gives the memory broker the command that means the same. */
const evaluate = (broker: Broker, command: Command, erlang: string) =>
  broker.evaluate(broker.origin === "memory" ? JSON.stringify(command) : erlang)

/** Adds a virtual host in which the user has all permissions. */
export const addVhost = (broker: Broker, vhost: string, user: string) =>
  evaluate(
    broker,
    { do: "addVhost", vhost },
    `
    ok = rabbit_vhost:add(${binary(vhost)}, <<"effect-amqp">>),
    ok = rabbit_auth_backend_internal:set_permissions(
      ${binary(user)}, ${binary(vhost)}, <<".*">>, <<".*">>, <<".*">>, <<"effect-amqp">>),
    ok.
  `
  )

/** Deletes a virtual host; the broker closes its connections. */
export const deleteVhost = (broker: Broker, vhost: string) =>
  evaluate(broker, { do: "deleteVhost", vhost }, `rabbit_vhost:delete(${binary(vhost)}, <<"effect-amqp">>).`)

export const census = (broker: Broker, vhost: string): Effect.Effect<Census, TestBrokerError> =>
  evaluate(
    broker,
    { do: "census", vhost },
    `
    Channels = [C || C <- rabbit_channel:info_all([vhost, consumer_count, messages_unacknowledged,
                       messages_unconfirmed]), proplists:get_value(vhost, C) =:= ${binary(vhost)}],
    Queues = ${queueRows(vhost)},
    Sum = fun(Key, Rows) -> lists:sum([proplists:get_value(Key, R) || R <- Rows]) end,
    iolist_to_binary(io_lib:format(
      "{\\"connections\\":~b,\\"channels\\":~b,\\"consumers\\":~b,\\"unacked\\":~b,\\"unconfirmed\\":~b,"
      "\\"queues\\":~b,\\"messages\\":~b}",
      [length(${connectionsOf(vhost)}), length(Channels), Sum(consumer_count, Channels),
       Sum(messages_unacknowledged, Channels), Sum(messages_unconfirmed, Channels),
       length(Queues), Sum(messages, Queues)])).
  `
  ).pipe(Effect.flatMap((text) => decode<Census>(text)))

export const queues = (broker: Broker, vhost: string): Effect.Effect<ReadonlyArray<QueueCensus>, TestBrokerError> =>
  evaluate(
    broker,
    { do: "queues", vhost },
    `
    iolist_to_binary(["[", lists:join(",", [begin
      {resource, _, queue, Name} = proplists:get_value(name, Q),
      [Messages, Ready, Unacked, Consumers] = [proplists:get_value(K, Q) ||
        K <- [messages, messages_ready, messages_unacknowledged, consumers]],
      io_lib:format("{\\"name\\":\\"~s\\",\\"messages\\":~b,\\"ready\\":~b,\\"unacked\\":~b,\\"consumers\\":~b}",
        [base64:encode(Name), Messages, Ready, Unacked, Consumers])
    end || Q <- ${queueRows(vhost)}]), "]"]).
  `
  ).pipe(
    Effect.flatMap((text) => decode<ReadonlyArray<QueueCensus>>(text)),
    Effect.map((rows) =>
      rows.map((row) => ({ ...row, name: new TextDecoder().decode(Uint8Array.from(atob(row.name), codePoint)) }))
    )
  )

const codePoint = (character: string) => character.codePointAt(0) ?? 0

const explanation = (reason: string) => `unicode:characters_to_list(${binary(reason)})`

export const closeConnections = (broker: Broker, vhost: string, reason: string) =>
  evaluate(
    broker,
    { do: "closeConnections", vhost, reason },
    `
    Pids = ${connectionsOf(vhost)},
    [catch rabbit_networking:close_connection(P, ${explanation(reason)}) || P <- Pids],
    length(Pids).
  `
  ).pipe(Effect.map(Number))

// Reads what has arrived on every socket of this process.
const readSockets = Effect.callback<void>((resume) => {
  setImmediate(() => setImmediate(() => resume(Effect.void)))
})

/**
 * Kills connections, and returns when their sockets are closed and a client in this process has read that. Otherwise
 * what a test publishes next would be sent on the old connection, with an unknown outcome.
 */
export const killConnections = (broker: Broker, vhost: string) =>
  evaluate(
    broker,
    { do: "killConnections", vhost },
    `
    Pids = ${connectionsOf(vhost)},
    Sockets = lists:append([[L || {links, Links} <- [process_info(P, links)], L <- Links, is_port(L)] || P <- Pids]),
    Monitors = [monitor(process, P) || P <- Pids] ++ [monitor(port, S) || S <- Sockets],
    [exit(P, kill) || P <- Pids],
    [receive {'DOWN', M, _, _, _} -> ok after 1000 -> ok end || M <- Monitors],
    length(Pids).
  `
  ).pipe(
    Effect.map(Number),
    Effect.tap(() => readSockets)
  )

// The alarm changes by notification, a moment after the watermark.
const awaitAlarm = (raised: boolean) => `
  Await = fun Await(Attempts) ->
    Raised = lists:any(fun({{resource_limit, memory, _}, _}) -> true; (_) -> false end, rabbit_alarm:get_alarms()),
    if Raised =:= ${raised} -> ok; Attempts > 0 -> timer:sleep(5), Await(Attempts - 1); true -> exit(no_alarm_change) end
  end,
  ok = Await(1000)
`

export const blockPublishers = (broker: Broker) =>
  evaluate(
    broker,
    { do: "blockPublishers" },
    `ok = vm_memory_monitor:set_vm_memory_high_watermark(0.0000001), ${awaitAlarm(true)}.`
  )

export const unblockPublishers = (broker: Broker) =>
  evaluate(
    broker,
    { do: "unblockPublishers" },
    `
    {ok, Configured} = application:get_env(rabbit, vm_memory_high_watermark),
    ok = vm_memory_monitor:set_vm_memory_high_watermark(Configured), ${awaitAlarm(false)}.
  `
  )
