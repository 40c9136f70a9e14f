/**
 * The rules by which something is wrong: `AmqpHealth` derives readiness from them, and the dashboard shows them in
 * words. docs/dashboard.md has the table of the rules; a test compares both.
 */
import type { AmqpConnection, AmqpConsumer } from "@effect-amqp/core"
import { causeOf, endOf } from "./causes.ts"
import type { Situation } from "./situation.ts"

/** Something that is wrong. */
export interface Finding {
  /** The name of the rule. */
  readonly rule: string
  /** The reason that `AmqpHealth` reports if the service is not ready; `undefined` if it is ready nevertheless. */
  readonly reason: string | undefined
  /** What it is about, such as the name of a queue, which anyone may have chosen; `undefined` for the whole service. */
  readonly subject: string | undefined
  /** What is wrong. */
  readonly what: string
  /** What to do. Empty if `what` says it. */
  readonly todo: string
  /** When it began, in milliseconds of Unix time; `undefined` if that is not known. */
  readonly since: number | undefined
}

/** Whether the service is ready while a rule finds something: always, never, or as the found condition says. */
export type Readiness = "yes" | "no" | "as the condition says" | 'no, or yes with `blocked: "ready"`'

export interface Rule {
  readonly name: string
  /** When it finds something, for the documentation. */
  readonly when: string
  /** What to do, for the documentation. */
  readonly todo: string
  readonly ready: Readiness
  readonly find: (situation: Situation) => ReadonlyArray<Finding>
}

type Found = { readonly [Name in Exclude<keyof Finding, "rule" | "what">]?: Finding[Name] } & Pick<Finding, "what">

/** Makes a rule whose findings have its name and, unless they say otherwise, its advice and its readiness. */
const rule = (
  declared: Omit<Rule, "find"> & {
    /** The reason of `AmqpHealth`. Default: the rule's name. */
    readonly reason?: string
    readonly find: (situation: Situation) => Found | ReadonlyArray<Found> | undefined
  }
): Rule => {
  const { find, name, ready, todo } = declared
  const reason = ready === "yes" ? undefined : (declared.reason ?? name)
  return {
    ...declared,
    find: (situation) => {
      const found = find(situation) ?? []
      const all = Array.isArray(found) ? (found as ReadonlyArray<Found>) : [found as Found]
      return all.map((one): Finding => {
        const { since, subject, what } = one
        return {
          rule: name,
          reason: Object.hasOwn(one, "reason") ? one.reason : reason,
          subject,
          what,
          // The documentation has Markdown.
          todo: one.todo ?? todo.replaceAll("`", ""),
          since
        }
      })
    }
  }
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 })

/** A number and its noun, such as `1 message`. */
const counted = (count: number, noun: string, plural = `${noun}s`) =>
  `${whole.format(count)} ${count === 1 ? noun : plural}`

const minutes = (milliseconds: number) => {
  const seconds = Math.round(milliseconds / 1000)
  return seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`
}

const sum = (counts: Readonly<Record<string, number>>) => Object.values(counts).reduce((all, one) => all + one, 0)

const percent = (part: number, all: number) => `${Math.round((100 * part) / all)} %`

// --- The connection --------------------------------------------------------------------------------------------------

const connectionClosed = rule({
  name: "ConnectionClosed",
  when: 'The connection is closed permanently: refused at first, or by `reconnect.onRefused: "close"`.',
  todo: "Correct the cause, then restart the service.",
  ready: "no",
  reason: "NotConnected",
  find: ({ state, stateSince }) => {
    if (state._tag !== "Closed") return undefined
    const { todo, why } = causeOf(state.reason._tag)
    return {
      what: `The connection is closed permanently: ${why}`,
      todo: `${todo} Then restart the service.`,
      since: stateSince
    }
  }
})

const notConnected = rule({
  name: "NotConnected",
  when: "There is no connection to the broker. The service connects again and again.",
  todo: "Depends on the failure of the last attempt, see [causes](#causes).",
  ready: "no",
  find: ({ state, stateSince }) => {
    if (state._tag !== "Connecting" && state._tag !== "Reconnecting") return undefined
    const attempts = state.attempt === 0 ? "" : `, ${counted(state.attempt, "attempt")} failed`
    if (state.reason === undefined) {
      return { what: `The first connection is being opened${attempts}`, todo: "Wait a moment.", since: stateSince }
    }
    const { todo, why } = causeOf(state.reason._tag)
    return { what: `No connection to the broker: ${why}${attempts}`, todo, since: stateSince }
  }
})

const isMemory = /memory/i
const isDisk = /disk/i

const blocked = rule({
  name: "Blocked",
  when: "The broker blocks publishers (`connection.blocked`): it is low on memory or on disk space.",
  todo: "Free memory or disk space at the broker, or raise its limit. Publishers continue automatically.",
  ready: 'no, or yes with `blocked: "ready"`',
  find: ({ blocked, flow, stateSince }) => {
    if (flow._tag !== "Blocked") return undefined
    const [why, todo] = isMemory.test(flow.reason)
      ? ["the broker is low on memory", "Free memory there, for example by consuming long queues."]
      : isDisk.test(flow.reason)
        ? ["the broker is low on disk space", "Free disk space there."]
        : [flow.reason.slice(0, 100), "Look at the alarms of the broker."]
    return {
      what: `Publishers are blocked: ${why}`,
      todo: `${todo} Publishers continue automatically.`,
      since: stateSince,
      ...(blocked === "ready" ? { reason: undefined } : undefined)
    }
  }
})

// --- The pool --------------------------------------------------------------------------------------------------------

const isPoolFull = ({ pool: { max, maxWaiting, pending, used } }: Situation) =>
  used >= max && pending >= Math.max(1, maxWaiting)

const poolFull = rule({
  name: "PoolFull",
  when: "All channels are in use, and the wait queue is full, so that the next borrower is refused.",
  todo: "Find out what holds channels for long: a slow handler of a request, or a transaction. Raise `pool.max` if the load is normal.",
  ready: "no",
  find: (situation) => {
    const { max, pending } = situation.pool
    return isPoolFull(situation)
      ? { what: `All ${counted(max, "channel")} are in use, and ${counted(pending, "borrower")} fill the wait queue` }
      : undefined
  }
})

const poolBusy = rule({
  name: "PoolBusy",
  when: "All channels are in use, and borrowers wait.",
  todo: "Find out what holds channels for long, or raise `pool.max`.",
  ready: "yes",
  find: (situation) => {
    const { max, pending, used } = situation.pool
    return used >= max && pending > 0 && !isPoolFull(situation)
      ? {
          what: `All ${counted(max, "channel")} are in use, and ${counted(pending, "borrower")} ${pending === 1 ? "waits" : "wait"}`
        }
      : undefined
  }
})

const acquireTimeouts = rule({
  name: "AcquireTimeouts",
  when: "Borrowers got no channel within `pool.acquireTimeout`, in the last 5 minutes.",
  todo: "Find out what holds channels for long, or raise `pool.max`.",
  ready: "yes",
  find: ({ recent }) =>
    recent !== undefined && recent.acquireTimeouts > 0
      ? {
          what: `${counted(recent.acquireTimeouts, "borrower")} got no channel in time in ${minutes(recent.length)}`,
          since: recent.since.acquireTimeouts
        }
      : undefined
})

const stopping = rule({
  name: "Stopping",
  when: "The HTTP server is stopping (`AmqpHttpServer.graceful`).",
  todo: "Wait for its end.",
  ready: "no",
  find: ({ stopping }) => (stopping ? { what: "The service is stopping" } : undefined)
})

// --- Consumers -------------------------------------------------------------------------------------------------------

/** The consumers of one name, which share the work of a queue. */
interface Group {
  readonly name: string
  readonly queue: string
  /** Those that the application wants to run: all but the stopped ones. */
  readonly wanted: ReadonlyArray<AmqpConsumer.Status>
}

const isWanted = ({ lastEnd, state }: AmqpConsumer.Status) => state !== "Ended" || lastEnd?.how === "failed"

export const groupsOf = (consumers: ReadonlyArray<AmqpConsumer.Status>): ReadonlyArray<Group> => {
  const groups = new Map<string, Group & { readonly wanted: Array<AmqpConsumer.Status> }>()
  for (const consumer of consumers) {
    if (!isWanted(consumer)) continue
    const { name, queue } = consumer
    const key = JSON.stringify([queue, name])
    const group = groups.get(key) ?? { name, queue, wanted: [] }
    groups.set(key, group)
    group.wanted.push(consumer)
  }
  return Array.from(groups.values())
}

/** The consumers of one group that something is wrong with. */
interface Affected extends Pick<Found, "what" | "todo" | "reason"> {
  readonly subject: string
  readonly queue: string
  readonly these: number
  readonly wanted: number
  readonly since: number
}

/** Puts those together with which the same is wrong. */
const togetherBy = (affected: ReadonlyArray<Affected>): ReadonlyArray<ReadonlyArray<Affected>> => {
  const alike = new Map<string, Array<Affected>>()
  for (const one of affected) {
    const same = alike.get(one.what)
    if (same === undefined) alike.set(one.what, [one])
    else same.push(one)
  }
  return Array.from(alike.values())
}

/** Groups from which the same finding is one line: in an outage of 30 queues, 30 lines would hide all others. */
const fewest = 4

const linesOf = (alike: ReadonlyArray<Affected>): ReadonlyArray<Found> => {
  const of = (these: number, wanted: number) => (wanted === 1 ? "" : `${these} of ${wanted} consumers: `)
  if (alike.length < fewest) {
    return alike.map(({ reason, since, subject, these, todo, wanted, what }) => ({
      subject,
      what: `${of(these, wanted)}${what}`,
      ...(todo === undefined ? undefined : { todo }),
      since,
      reason
    }))
  }
  const sum = (key: "these" | "wanted") => alike.reduce((sum, one) => sum + one[key], 0)
  const queues = new Set(alike.map(({ queue }) => queue)).size
  const { reason, todo, what } = alike[0]!
  return [
    {
      // The table of consumers has their names.
      what: `${counted(queues, "queue")}, ${of(sum("these"), sum("wanted"))}${what}`,
      ...(todo === undefined ? undefined : { todo }),
      since: Math.min(...alike.map(({ since }) => since)),
      reason
    }
  ]
}

/** The findings for the conditions of one kind: grouped by consumer if the statuses are known, otherwise their texts. */
const consumersBy =
  (
    kind: string,
    isFound: (consumer: AmqpConsumer.Status) => boolean,
    describe: (found: ReadonlyArray<AmqpConsumer.Status>) => Pick<Found, "what" | "todo">
  ) =>
  ({ conditions, consumers }: Situation): ReadonlyArray<Found> => {
    const reported = conditions.filter((condition) => condition.kind === kind)
    if (reported.length === 0) return []
    const reason = reported.some(({ notReady }) => notReady) ? kind : undefined
    const groups = groupsOf(consumers.filter(({ requiredForReadiness }) => requiredForReadiness))
    const affected = groups.flatMap(({ name, queue, wanted }): ReadonlyArray<Affected> => {
      const these = wanted.filter(isFound)
      if (these.length === 0) return []
      return [
        {
          subject: name === queue ? queue : `${name} (queue ${queue})`,
          queue,
          these: these.length,
          wanted: wanted.length,
          ...describe(these),
          since: Math.min(...these.map(({ since }) => since)),
          reason
        }
      ]
    })
    if (affected.length === 0) return reported.map((condition) => textOf(condition))
    return togetherBy(affected).flatMap(linesOf)
  }

const textOf = ({ kind, message, notReady, since }: AmqpConnection.Condition, todo = ""): Found => ({
  what: message,
  todo,
  since,
  reason: notReady ? kind : undefined
})

/** The tag that most have. */
const commonest = (tags: ReadonlyArray<string | undefined>): string => {
  const counts = new Map<string, number>()
  for (const tag of tags) if (tag !== undefined) counts.set(tag, (counts.get(tag) ?? 0) + 1)
  return Array.from(counts).sort(([, a], [, b]) => b - a)[0]?.[0] ?? ""
}

const consumerEnded = rule({
  name: "ConsumerEnded",
  when: "A consumer or RPC server has ended, and the application did not end it.",
  todo: "Depends on how it ended, see [causes](#causes). Then start it again, usually by a restart of the service.",
  ready: "no",
  find: consumersBy(
    "ConsumerEnded",
    ({ state }) => state === "Ended",
    (ended) => {
      const { todo, why } = endOf(commonest(ended.map(({ lastEnd }) => lastEnd?.tag)))
      return { what: `ended, ${why}`, todo: `${todo} Then start the consumer again, for example by a restart.` }
    }
  )
})

const consumerNotStarted = rule({
  name: "ConsumerNotStarted",
  when: "A consumer has not subscribed yet: an attempt has failed, or 5 s have passed.",
  todo: "Depends on the failure, see [causes](#causes). It subscribes automatically.",
  ready: "no",
  find: consumersBy(
    "ConsumerNotStarted",
    ({ lastEnd, state }) => (state === "Starting" || state === "WaitingForQueue") && lastEnd?.how !== "failed",
    (waiting) => {
      const { todo, why } = endOf(commonest(waiting.map(({ lastError }) => lastError?.tag)) || "NoConnection")
      return { what: `not started, ${why}`, todo: `${todo} It starts automatically.` }
    }
  )
})

const consumerInterrupted = rule({
  name: "ConsumerInterrupted",
  when: "A consumer has lost its subscription, and subscribes again.",
  todo: "Depends on the loss, see [causes](#causes). It subscribes automatically.",
  ready: "yes",
  find: consumersBy(
    "ConsumerInterrupted",
    ({ state }) => state === "Reconnecting" || state === "WaitingForQueue",
    (lost) => {
      const { todo, why } = endOf(commonest(lost.map(({ lastError }) => lastError?.tag)))
      return { what: `subscribing again, ${why}`, todo: `${todo} It subscribes automatically.` }
    }
  )
})

const consumersNotConnected = rule({
  name: "ConsumersNotConnected",
  when: "The consumers’ own connection is not open, while the connection of pool and publisher is.",
  todo: "Wait: it connects automatically. If it lasts, look at the broker’s limits of connections.",
  ready: "yes",
  find: ({ consumersState, state }) => {
    if (consumersState === undefined || state._tag !== "Open" || consumersState.state._tag === "Open") return undefined
    const { reason } = consumersState.state
    if (reason === undefined) return undefined
    const { todo, why } = causeOf(reason._tag)
    return { what: `The consumers’ connection is not open: ${why}`, todo, since: consumersState.since }
  }
})

const ofConsumers = new Set(["ConsumerEnded", "ConsumerNotStarted", "ConsumerInterrupted"])

/** What to do about the conditions of the library's packages. Other conditions say it themselves. */
const advice: Readonly<Record<string, string>> = {
  DeclarationSetAside: "Make the declaration and the broker agree. The declaration is tried again automatically.",
  OutboxBehind: "Look for the relay’s log, the connection and the database.",
  OutboxDatabaseFailed: "Look for the database and its tables. The relay continues automatically."
}

const condition = rule({
  name: "Condition",
  when: "Any other condition lasts, such as `ConsumerPaused` or `OutboxBehind` (`AmqpConnection.conditions`).",
  todo: "As the condition’s text says.",
  ready: "as the condition says",
  find: ({ conditions }) =>
    conditions
      .filter(({ kind }) => !ofConsumers.has(kind))
      .map((condition) => textOf(condition, advice[condition.kind]))
})

// --- Messages --------------------------------------------------------------------------------------------------------

/** The tag that most failures have, if it is clear. */
const mainFailure = (failures: Readonly<Record<string, number>>): string => {
  const all = sum(failures)
  const [tag, count] = Object.entries(failures).sort(([, a], [, b]) => b - a)[0] ?? ["", 0]
  return all === 0 ? "" : `; ${percent(count, all)} of the failures are ${tag}`
}

const deadLetters = rule({
  name: "DeadLetters",
  when: "Consumers dead-lettered messages in the last 5 minutes.",
  todo: "Correct the cause of the failures, then move the dead letters back to their queue (`AmqpDeadLetters`).",
  ready: "yes",
  find: ({ recent }) =>
    recent !== undefined && recent.deadLettered > 0
      ? {
          what: `${counted(recent.deadLettered, "dead letter")} in ${minutes(recent.length)}${mainFailure(recent.failures)}`,
          since: recent.since.deadLettered
        }
      : undefined
})

const returned = rule({
  name: "Returned",
  when: "The broker returned messages that no queue takes (`mandatory`), in the last 5 minutes.",
  todo: "Compare exchange and routing key with the bindings at the broker: a queue or a binding is missing.",
  ready: "yes",
  find: ({ recent }) =>
    recent !== undefined && recent.returned > 0
      ? {
          what: `${counted(recent.returned, "message")} returned in ${minutes(recent.length)}: no queue takes them`,
          since: recent.since.returned
        }
      : undefined
})

const outcomes: Readonly<Record<string, string>> = {
  nacked: "refused by the broker",
  timedOut: "timed out",
  unknown: "with unknown outcome",
  forbidden: "not permitted",
  refused: "invalid"
}

const publishesFailed = rule({
  name: "PublishesFailed",
  when: "Publishes failed or were refused, in the last 5 minutes. Returned messages have a rule of their own.",
  todo: "The log names the errors. After an outage the publishes with an unknown outcome may have arrived.",
  ready: "yes",
  find: ({ recent }) => {
    const failed = recent === undefined ? 0 : sum(recent.failedPublishes)
    if (recent === undefined || failed === 0) return undefined
    const parts = Object.entries(recent.failedPublishes)
      .filter(([, count]) => count > 0)
      .map(([outcome, count]) => `${whole.format(count)} ${outcomes[outcome] ?? outcome}`)
    return {
      what: `${counted(failed, "publish", "publishes")} failed in ${minutes(recent.length)}: ${parts.join(", ")}`,
      since: recent.since.failedPublishes
    }
  }
})

/** Fewer redeliveries than these are normal, for example after a restart. */
const leastRedeliveries = 10
const leastShare = 0.1

const redeliveries = rule({
  name: "Redeliveries",
  when: "At least 10 deliveries, and a tenth of all, were redeliveries, in the last 5 minutes.",
  todo: "Look for handlers that fail again and again, and for connections that are lost. A retry with delays eases the load.",
  ready: "yes",
  find: ({ recent }) =>
    recent !== undefined &&
    recent.redelivered >= leastRedeliveries &&
    recent.redelivered >= leastShare * recent.delivered
      ? {
          what: `${percent(recent.redelivered, Math.max(recent.delivered, recent.redelivered))} of the deliveries in ${minutes(recent.length)} are redeliveries (${whole.format(recent.redelivered)})${mainFailure(recent.failures)}`,
          since: recent.since.redelivered
        }
      : undefined
})

// --- Queues ----------------------------------------------------------------------------------------------------------

const queueMissing = rule({
  name: "QueueMissing",
  when: "A queue that is counted does not exist (only with `queueCounts`), and no rule for its consumers applies.",
  todo: "Declare the queue, or start the application that declares it.",
  ready: "yes",
  find: ({ consumers, queues }) =>
    Array.from(queues ?? []).flatMap(([queue, counts]) =>
      counts === undefined &&
      !consumers.some((consumer) => consumer.queue === queue && isWanted(consumer) && consumer.state !== "Running")
        ? [{ subject: queue, what: "the queue does not exist" }]
        : []
    )
})

const queueUnconsumed = rule({
  name: "QueueUnconsumed",
  when: "Messages wait in a queue that is counted, and neither the broker nor this process knows a consumer of it (only with `queueCounts`).",
  todo: "Start the service that consumes it.",
  ready: "yes",
  find: ({ consumers, queues }) =>
    Array.from(queues ?? []).flatMap(([queue, counts]) =>
      counts !== undefined &&
      counts.ready > 0 &&
      counts.consumers === 0 &&
      // RabbitMQ reports no consumers of a stream.
      !consumers.some((consumer) => consumer.queue === queue && consumer.state === "Running")
        ? [
            {
              subject: queue,
              what: `${counted(counts.ready, "message")} ${counts.ready === 1 ? "waits" : "wait"}, and the queue has no consumer`
            }
          ]
        : []
    )
})

/** All rules, the most important one first. */
export const rules: ReadonlyArray<Rule> = [
  connectionClosed,
  notConnected,
  blocked,
  poolFull,
  stopping,
  consumerEnded,
  consumerNotStarted,
  consumersNotConnected,
  consumerInterrupted,
  condition,
  deadLetters,
  returned,
  publishesFailed,
  acquireTimeouts,
  poolBusy,
  redeliveries,
  queueMissing,
  queueUnconsumed
]

/** What is wrong, the most important first; empty if nothing is. */
export const diagnose = (situation: Situation): ReadonlyArray<Finding> => rules.flatMap(({ find }) => find(situation))

/** The reasons why a service is not ready, each once. */
export const reasonsOf = (findings: ReadonlyArray<Finding>): ReadonlyArray<string> =>
  Array.from(new Set(findings.flatMap(({ reason }) => (reason === undefined ? [] : [reason]))))
