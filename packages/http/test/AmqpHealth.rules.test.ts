/** The rules of health checks and of the dashboard, one by one. */
import { assert, describe, it } from "@effect/vitest"
import { type AmqpConnection, type AmqpConsumer, AmqpError } from "@effect-amqp/core"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { connectionCauses, consumerCauses } from "../src/internal/health/causes.ts"
import { diagnose, reasonsOf, rules } from "../src/internal/health/rules.ts"
import type { Recent, Situation } from "../src/internal/health/situation.ts"

const open: AmqpConnection.State = {
  _tag: "Open",
  peer: "broker:5672",
  product: "RabbitMQ 4.3.0",
  generation: 1,
  channelMax: 2047,
  frameMax: 131_072,
  heartbeat: undefined as never
}

const calm: Situation = {
  state: open,
  flow: { _tag: "Flowing" },
  stateSince: 1000,
  blocked: "notReady",
  pool: { used: 0, pending: 0, max: 4, maxWaiting: 10 },
  stopping: false,
  conditions: [],
  consumers: [],
  consumersState: undefined,
  recent: undefined,
  queues: undefined
}

const quiet: Recent = {
  length: 300_000,
  delivered: 0,
  redelivered: 0,
  deadLettered: 0,
  returned: 0,
  failedPublishes: {},
  failures: {},
  acquireTimeouts: 0,
  since: {}
}

const status = (
  name: string,
  state: AmqpConsumer.Status["state"],
  tag?: string,
  how: "failed" | "stopped" = "failed"
): AmqpConsumer.Status => ({
  name,
  queue: name,
  requiredForReadiness: true,
  state,
  since: 5000,
  delivered: 0,
  buffered: 0,
  inFlight: 0,
  failures: {},
  deadLetters: {},
  lastError: tag === undefined ? undefined : { tag, at: 5000 },
  lastEnd: state === "Ended" ? { how, tag, at: 5000 } : undefined
})

const condition = (kind: string, notReady: boolean): AmqpConnection.Condition => ({
  kind,
  message: "the condition's text",
  notReady,
  since: 4000
})

const closed = new AmqpError.AuthenticationFailed({ message: "refused for the user operator" })
const lost = new AmqpError.ConnectionClosed({ message: "reset" })

/** For each rule, situations and what it says in each: the subject, the words, since when, and the reason of health. */
const cases: Record<string, ReadonlyArray<readonly [Partial<Situation>, ...ReadonlyArray<ReadonlyArray<unknown>>]>> = {
  ConnectionClosed: [
    [
      { state: { _tag: "Closed", reason: closed } },
      [undefined, "The connection is closed permanently: the broker refuses the credentials", 1000, "NotConnected"]
    ]
  ],
  NotConnected: [
    [
      { state: { _tag: "Connecting", attempt: 0, reason: undefined } },
      [undefined, "The first connection is being opened", 1000, "NotConnected"]
    ],
    [
      { state: { _tag: "Reconnecting", attempt: 3, reason: lost } },
      [
        undefined,
        "No connection to the broker: the connection was closed or lost, 3 attempts failed",
        1000,
        "NotConnected"
      ]
    ]
  ],
  Blocked: [
    [
      { flow: { _tag: "Blocked", reason: "low on memory" } },
      [undefined, "Publishers are blocked: the broker is low on memory", 1000, "Blocked"]
    ],
    [
      { flow: { _tag: "Blocked", reason: "low on disk" }, blocked: "ready" },
      [undefined, "Publishers are blocked: the broker is low on disk space", 1000, undefined]
    ]
  ],
  PoolFull: [
    [
      { pool: { used: 4, pending: 10, max: 4, maxWaiting: 10 } },
      [undefined, "All 4 channels are in use, and 10 borrowers fill the wait queue", undefined, "PoolFull"]
    ],
    [
      { pool: { used: 4, pending: 1, max: 4, maxWaiting: 0 } },
      [undefined, "All 4 channels are in use, and 1 borrower fill the wait queue", undefined, "PoolFull"]
    ]
  ],
  PoolBusy: [
    [
      { pool: { used: 4, pending: 1, max: 4, maxWaiting: 10 } },
      [undefined, "All 4 channels are in use, and 1 borrower waits", undefined, undefined]
    ],
    [{ pool: { used: 3, pending: 1, max: 4, maxWaiting: 10 } }]
  ],
  AcquireTimeouts: [
    [
      { recent: { ...quiet, acquireTimeouts: 2, since: { acquireTimeouts: 3000 } } },
      [undefined, "2 borrowers got no channel in time in 5 min", 3000, undefined]
    ]
  ],
  Stopping: [[{ stopping: true }, [undefined, "The service is stopping", undefined, "Stopping"]]],
  ConsumerEnded: [
    [
      {
        conditions: [condition("ConsumerEnded", true)],
        consumers: [
          status("shipments", "Ended", "ConsumerCancelled"),
          status("shipments", "Ended", "ConsumerCancelled"),
          status("shipments", "Running"),
          status("shipments", "Running"),
          status("shipments", "Ended", undefined, "stopped"),
          status("orders", "Running")
        ]
      },
      ["shipments", "2 of 4 consumers: ended, its queue was deleted", 5000, "ConsumerEnded"]
    ],
    // Without the statuses the text of the condition says it.
    [{ conditions: [condition("ConsumerEnded", true)] }, [undefined, "the condition's text", 4000, "ConsumerEnded"]]
  ],
  ConsumerNotStarted: [
    [
      {
        conditions: [condition("ConsumerNotStarted", true)],
        consumers: [status("orders", "WaitingForQueue", "NotFound")]
      },
      ["orders", "not started, its queue does not exist", 5000, "ConsumerNotStarted"]
    ]
  ],
  ConsumerInterrupted: [
    [
      {
        conditions: [condition("ConsumerInterrupted", false)],
        consumers: [status("orders", "Reconnecting", "ChannelClosed")]
      },
      ["orders", "subscribing again, its channel was closed", 5000, undefined]
    ]
  ],
  ConsumersNotConnected: [
    [
      { consumersState: { state: { _tag: "Reconnecting", attempt: 1, reason: lost }, since: 2000 } },
      [undefined, "The consumers’ connection is not open: the connection was closed or lost", 2000, undefined]
    ],
    [{ consumersState: { state: open, since: 2000 } }]
  ],
  Condition: [
    [
      { conditions: [condition("OutboxBehind", false), condition("Custom", true)] },
      [undefined, "the condition's text", 4000, undefined],
      [undefined, "the condition's text", 4000, "Custom"]
    ]
  ],
  DeadLetters: [
    [
      {
        recent: {
          ...quiet,
          deadLettered: 214,
          failures: { DatabaseUnavailable: 96, NotThere: 4 },
          since: { deadLettered: 3000 }
        }
      },
      [undefined, "214 dead letters in 5 min; 96 % of the failures are DatabaseUnavailable", 3000, undefined]
    ]
  ],
  Returned: [
    [
      { recent: { ...quiet, returned: 1, since: { returned: 3000 } } },
      [undefined, "1 message returned in 5 min: no queue takes them", 3000, undefined]
    ]
  ],
  PublishesFailed: [
    [
      { recent: { ...quiet, failedPublishes: { nacked: 1, timedOut: 1200 }, since: { failedPublishes: 3000 } } },
      [undefined, "1,201 publishes failed in 5 min: 1 refused by the broker, 1,200 timed out", 3000, undefined]
    ]
  ],
  Redeliveries: [
    [
      { recent: { ...quiet, delivered: 40, redelivered: 10, since: { redelivered: 3000 } } },
      [undefined, "25 % of the deliveries in 5 min are redeliveries (10)", 3000, undefined]
    ],
    [{ recent: { ...quiet, delivered: 9, redelivered: 9 } }],
    [{ recent: { ...quiet, delivered: 1000, redelivered: 99 } }]
  ],
  QueueMissing: [
    [{ queues: new Map([["gone", undefined]]) }, ["gone", "the queue does not exist", undefined, undefined]],
    // The finding about its consumers says it.
    [{ queues: new Map([["gone", undefined]]), consumers: [status("gone", "WaitingForQueue", "NotFound")] }],
    [
      { queues: new Map([["gone", undefined]]), consumers: [status("gone", "Ended", undefined, "stopped")] },
      ["gone", "the queue does not exist", undefined, undefined]
    ]
  ],
  QueueUnconsumed: [
    [
      { queues: new Map([["orders", { ready: 1204, consumers: 0, at: 1 }]]) },
      ["orders", "1,204 messages wait, and the queue has no consumer", undefined, undefined]
    ],
    [
      {
        queues: new Map([
          ["orders", { ready: 1204, consumers: 1, at: 1 }],
          ["idle", { ready: 0, consumers: 0, at: 1 }]
        ])
      }
    ],
    // A stream: the broker reports none of its consumers.
    [{ queues: new Map([["orders", { ready: 9, consumers: 0, at: 1 }]]), consumers: [status("orders", "Running")] }]
  ]
}

describe("rules of health checks and of the dashboard", () => {
  it("nothing is wrong with a service that is connected and idle", () => {
    assert.deepStrictEqual(diagnose({ ...calm, recent: quiet, queues: new Map() }), [])
  })

  it("the same finding for the consumers of four queues or more is one line", () => {
    const lost = (...names: ReadonlyArray<string>) =>
      diagnose({
        ...calm,
        conditions: [condition("ConsumerInterrupted", false)],
        consumers: names.map((name) => status(name, "Reconnecting", "ConnectionClosed"))
      }).map(({ subject, what }) => [subject, what])
    const what = "subscribing again, the connection was closed or lost"
    assert.deepStrictEqual(lost("a", "b", "c"), [
      ["a", what],
      ["b", what],
      ["c", what]
    ])
    assert.deepStrictEqual(lost("a", "b", "c", "d", "d"), [[undefined, `4 queues, 5 of 5 consumers: ${what}`]])
  })

  it("every rule has a case", () => {
    assert.deepStrictEqual(Object.keys(cases).toSorted(), rules.map(({ name }) => name).toSorted())
  })

  for (const rule of rules) {
    it(`${rule.name} says what is wrong, since when and what to do, and no other rule says it too`, () => {
      for (const [situation, ...expected] of cases[rule.name] ?? []) {
        const found = diagnose({ ...calm, ...situation })
        assert.deepStrictEqual(
          found.map(({ reason, since, subject, what }) => [subject, what, since, reason]),
          expected
        )
        for (const { rule: name, todo } of found) {
          assert.strictEqual(name, rule.name)
          if (rule.name !== "Condition" && situation.consumers !== undefined) assert.isNotEmpty(todo)
          assert.notInclude(todo, "`")
        }
      }
    })
  }

  it("the most important is first, and each reason of health occurs once", () => {
    const found = diagnose({
      ...calm,
      state: { _tag: "Reconnecting", attempt: 0, reason: lost },
      stopping: true,
      conditions: [condition("Custom", true), condition("Custom", true), condition("ConsumerEnded", true)]
    })
    assert.deepStrictEqual(
      found.map(({ rule }) => rule),
      ["NotConnected", "Stopping", "ConsumerEnded", "Condition", "Condition"]
    )
    assert.deepStrictEqual(reasonsOf(found), ["NotConnected", "Stopping", "ConsumerEnded", "Custom"])
  })

  it("no text of an error is shown, because it may name a user", () => {
    const found = diagnose({ ...calm, state: { _tag: "Closed", reason: closed } })
    assert.notInclude(JSON.stringify(found), "operator")
    // A tag may have any name, also one of an object's own methods.
    const odd = {
      ...calm,
      conditions: [condition("ConsumerEnded", true)],
      consumers: [status("q", "Ended", "toString")]
    }
    assert.strictEqual(diagnose(odd)[0]?.what, "ended, toString")
  })

  it("docs/dashboard.md has the table of the rules and the tables of the causes", () => {
    const page = readFileSync(join(import.meta.dirname, "../../../docs/dashboard.md"), "utf8")
    const rows = page
      .split("\n")
      .filter((line) => line.startsWith("| `"))
      .map((line) =>
        line
          .slice(2, -2)
          .split(/ +\| /)
          .map((cell) => cell.trim())
      )
    assert.deepStrictEqual(rows, [
      ...rules.map(({ name, ready, todo, when }) => [`\`${name}\``, when, ready, todo]),
      ...[connectionCauses, consumerCauses].flatMap((causes) =>
        Object.entries(causes).map(([tag, { todo, why }]) => [`\`${tag}\``, why, todo])
      )
    ])
  })
})
