import * as Effect from "effect/Effect"
import { TestBrokerError } from "../TestBrokerError.ts"
import type { Broker } from "./broker.ts"

/** What one virtual host holds at the broker, counted by the processes themselves rather than by their statistics. */
export interface Census {
  readonly connections: number
  readonly channels: number
  readonly consumers: number
  /** Deliveries that no client has settled yet. */
  readonly unacked: number
  /** Publishes that the broker has still to confirm. */
  readonly unconfirmed: number
  readonly queues: number
  /** Messages in all queues, delivered or not. */
  readonly messages: number
}

/** One queue of a virtual host. */
export interface QueueCensus {
  readonly name: string
  readonly messages: number
  readonly ready: number
  readonly unacked: number
  readonly consumers: number
}

// A binary is spelled as its bytes: whatever the text holds, it cannot end the literal.
const binary = (text: string) => `<<${[...new TextEncoder().encode(text)].join(",")}>>`

const connectionsOf = (vhost: string) => `
  [P || [{pid, P}, {vhost, V}] <- rabbit_networking:connection_info_all([pid, vhost]), V =:= ${binary(vhost)}]
`

// Of a queue that is deleted meanwhile, or whose node is down, the broker tells the name alone.
const queueRows = (vhost: string) => `
  [Q || Q <- rabbit_amqqueue:info_all(${binary(vhost)},
              [name, messages, messages_ready, messages_unacknowledged, consumers]),
        is_integer(proplists:get_value(messages, Q)), is_integer(proplists:get_value(consumers, Q))]
`

const decode = <A>(text: string) =>
  Effect.try({
    // Written by the expressions below.
    try: () => JSON.parse(text) as A,
    catch: () => new TestBrokerError({ reason: "CommandFailed", message: `The broker answered ${text}` })
  })

/** Adds a virtual host in which the user may do everything. */
export const addVhost = (broker: Broker, vhost: string, user: string) =>
  broker.evaluate(`
    ok = rabbit_vhost:add(${binary(vhost)}, <<"effect-amqp">>),
    ok = rabbit_auth_backend_internal:set_permissions(
      ${binary(user)}, ${binary(vhost)}, <<".*">>, <<".*">>, <<".*">>, <<"effect-amqp">>),
    ok.
  `)

/** Deletes a virtual host; the broker closes what is still connected to it. */
export const deleteVhost = (broker: Broker, vhost: string) =>
  broker.evaluate(`rabbit_vhost:delete(${binary(vhost)}, <<"effect-amqp">>).`)

export const census = (broker: Broker, vhost: string): Effect.Effect<Census, TestBrokerError> =>
  broker
    .evaluate(
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
    )
    .pipe(Effect.flatMap((text) => decode<Census>(text)))

export const queues = (broker: Broker, vhost: string): Effect.Effect<ReadonlyArray<QueueCensus>, TestBrokerError> =>
  broker
    .evaluate(
      `
    iolist_to_binary(["[", lists:join(",", [begin
      {resource, _, queue, Name} = proplists:get_value(name, Q),
      [Messages, Ready, Unacked, Consumers] = [proplists:get_value(K, Q) ||
        K <- [messages, messages_ready, messages_unacknowledged, consumers]],
      io_lib:format("{\\"name\\":\\"~s\\",\\"messages\\":~b,\\"ready\\":~b,\\"unacked\\":~b,\\"consumers\\":~b}",
        [base64:encode(Name), Messages, Ready, Unacked, Consumers])
    end || Q <- ${queueRows(vhost)}]), "]"]).
  `
    )
    .pipe(
      Effect.flatMap((text) => decode<ReadonlyArray<QueueCensus>>(text)),
      Effect.map((rows) =>
        rows.map((row) => ({ ...row, name: new TextDecoder().decode(Uint8Array.from(atob(row.name), codePoint)) }))
      )
    )

const codePoint = (character: string) => character.codePointAt(0) ?? 0

const explanation = (reason: string) => `unicode:characters_to_list(${binary(reason)})`

export const closeConnections = (broker: Broker, vhost: string, reason: string) =>
  broker
    .evaluate(
      `
    Pids = ${connectionsOf(vhost)},
    [catch rabbit_networking:close_connection(P, ${explanation(reason)}) || P <- Pids],
    length(Pids).
  `
    )
    .pipe(Effect.map(Number))

export const killConnections = (broker: Broker, vhost: string) =>
  broker
    .evaluate(`Pids = ${connectionsOf(vhost)}, [exit(P, kill) || P <- Pids], length(Pids).`)
    .pipe(Effect.map(Number))

// The alarm is raised and cleared by notification, so it comes a moment after the watermark.
const awaitAlarm = (raised: boolean) => `
  Await = fun Await(Attempts) ->
    Raised = lists:any(fun({{resource_limit, memory, _}, _}) -> true; (_) -> false end, rabbit_alarm:get_alarms()),
    if Raised =:= ${raised} -> ok; Attempts > 0 -> timer:sleep(5), Await(Attempts - 1); true -> exit(no_alarm_change) end
  end,
  ok = Await(1000)
`

export const blockPublishers = (broker: Broker) =>
  broker.evaluate(`ok = vm_memory_monitor:set_vm_memory_high_watermark(0.0000001), ${awaitAlarm(true)}.`)

export const unblockPublishers = (broker: Broker) =>
  broker.evaluate(`
    {ok, Configured} = application:get_env(rabbit, vm_memory_high_watermark),
    ok = vm_memory_monitor:set_vm_memory_high_watermark(Configured), ${awaitAlarm(false)}.
  `)
