/** What a topology is, and which mistakes `check` finds in it without a broker. */
import { assert, describe, it } from "@effect/vitest"
import { AmqpTopology } from "@effect-amqp/core"

const { exchange, queue, queueBinding: bind } = AmqpTopology

describe("a description", () => {
  it("is plain data, and survives a round trip through JSON", () => {
    const topology = AmqpTopology.make(
      exchange("events", "topic", { alternateExchange: "lost" }),
      exchange("lost", "fanout"),
      queue("orders", { queueType: "quorum", messageTtl: "1 minute" }),
      bind("orders", "events", "order.*"),
      AmqpTopology.externalQueue("audit")
    )
    assert.deepStrictEqual(JSON.parse(JSON.stringify(topology)), topology as never)
  })

  it("that is repeated, in the same or in other words, counts once", () => {
    const events = exchange("events", "topic")
    const one = AmqpTopology.make(
      events,
      queue("orders", { messageTtl: "1 second", arguments: { "x-a": 1, "x-b": [2, { c: "3" }] } }),
      bind("orders", "events", "order.*")
    )
    const other = AmqpTopology.make(
      exchange("events", "topic", { durable: true, internal: undefined }),
      queue("orders", { messageTtl: 1000, durable: true, arguments: { "x-b": [2, { c: "3" }], "x-a": 1 } }),
      bind("orders", "events", "order.*", {})
    )
    assert.deepStrictEqual(AmqpTopology.make(one, other, events), one)
    assert.deepStrictEqual(AmqpTopology.check(AmqpTopology.make(one, other)), [])
  })
})

describe("check", () => {
  const { make } = AmqpTopology
  const dead = AmqpTopology.externalExchange("dead")

  const mistakes: Record<
    string,
    { readonly of: ReadonlyArray<AmqpTopology.Part>; readonly says: ReadonlyArray<string> }
  > = {
    "a binding from an exchange that is not declared": {
      of: [queue("q"), bind("q", "missing", "k")],
      says: ['binding of queue "q" to exchange "missing" by "k": exchange "missing" is not declared here']
    },
    "a binding of a queue that is not declared": {
      of: [exchange("x", "fanout"), bind("missing", "x")],
      says: ['binding of queue "missing" to exchange "x": queue "missing" is not declared here']
    },
    "a binding of an exchange that is not declared": {
      of: [exchange("x", "fanout"), AmqpTopology.exchangeBinding("missing", "x")],
      says: ['exchange "missing" is not declared here']
    },
    "an external queue does not stand for an exchange of that name": {
      of: [AmqpTopology.externalQueue("x"), queue("q"), bind("q", "x")],
      says: ['exchange "x" is not declared here']
    },
    "an option that queues of its type do not have": {
      of: [
        queue("a", { queueType: "quorum", maxPriority: 5, maxAge: "1 day" }),
        queue("b", { queueType: "classic", deliveryLimit: 5, delayedRetryType: "all", delayedRetryMin: 1 }),
        queue("c", { queueType: "stream", queueMode: "lazy", consumerDisconnectedTimeout: 1 }),
        queue("d", { queueType: "stream", arguments: { "x-delivery-limit": 3 } }),
        // This queue has the virtual host's default type, which may be the right one.
        queue("e", { maxPriority: 5, deliveryLimit: 5 }),
        queue("f", { queueType: "classic", deliveryLimit: "default" })
      ],
      says: [
        'queue "a": maxPriority is for queueType "classic": leave it out, a quorum queue has priorities without it',
        'queue "a": maxAge is for queueType "stream"',
        'queue "b": deliveryLimit is for queueType "quorum"',
        'queue "b": delayedRetryType is for queueType "quorum": leave it out, AmqpConsumer.retry waits',
        'queue "c": consumerDisconnectedTimeout is for queueType "quorum"',
        'queue "c": queueMode is for queueType "classic"',
        'queue "d": deliveryLimit is for queueType "quorum"'
      ]
    },
    "delayed retries without a minimum, with a maximum below it, or without a type": {
      of: [
        queue("a", { queueType: "quorum", delayedRetryType: "all" }),
        queue("b", { queueType: "quorum", delayedRetryMin: "1 second" }),
        queue("c", { queueType: "quorum", delayedRetryType: "all", delayedRetryMin: 2, delayedRetryMax: 1 })
      ],
      says: [
        'queue "a": delayedRetryMin: expected the shortest pause, which delayedRetryType requires',
        'queue "b": delayedRetryType: expected "all", "failed" or "returned"',
        'queue "c": delayedRetryMax: expected at least 2 ms (delayedRetryMin), got 1 ms'
      ]
    },
    "a binding from the default exchange": {
      of: [queue("q"), bind("q", "", "other")],
      says: ["the default exchange takes no bindings"]
    },
    "a binding to the default exchange": {
      of: [AmqpTopology.exchangeBinding("", "amq.topic", "k")],
      says: ["the default exchange takes no bindings"]
    },
    "a dead-letter exchange that is not declared": {
      of: [queue("q", { deadLetterExchange: "missing" })],
      says: ['queue "q": deadLetterExchange: exchange "missing" is not declared here']
    },
    "dead letters to a queue that is not declared": {
      of: [queue("q", { deadLetterExchange: "", deadLetterRoutingKey: "missing" })],
      says: ['queue "q": deadLetterRoutingKey: queue "missing" is not declared here']
    },
    "a dead-letter routing key without an exchange": {
      of: [queue("q", { deadLetterRoutingKey: "q" })],
      says: ['queue "q": deadLetterRoutingKey needs a deadLetterExchange']
    },
    "an alternate exchange that is not declared": {
      of: [exchange("x", "topic", { alternateExchange: "missing" })],
      says: ['exchange "x": alternateExchange: exchange "missing" is not declared here']
    },
    "a queue described in two ways": {
      of: [queue("q", { durable: false, messageTtl: 1000 }), queue("q", { messageTtl: "2 seconds" })],
      says: ['queue "q": described twice, with different durable (false and true), x-message-ttl (1000 and 2000)']
    },
    "an exchange described in two ways": {
      of: [exchange("x", "topic"), exchange("x", "fanout")],
      says: ['exchange "x": described twice, with different type ("topic" and "fanout")']
    },
    "at-least-once dead-lettering that RabbitMQ does not support": {
      of: [
        dead,
        queue("q", { queueType: "quorum", deadLetterStrategy: "at-least-once", deadLetterExchange: "dead" }),
        queue("r", { deadLetterStrategy: "at-least-once", overflow: "reject-publish", deadLetterExchange: "dead" }),
        AmqpTopology.workQueue("w", { queueType: "quorum", overflow: "drop-head" }),
        AmqpTopology.workQueue("v", { deadLetterStrategy: "at-least-once", overflow: "reject-publish" })
      ],
      says: [
        'queue "q": deadLetterStrategy "at-least-once" needs overflow "reject-publish"',
        'queue "r": deadLetterStrategy "at-least-once" needs queueType "quorum"',
        'queue "w": deadLetterStrategy "at-least-once" needs overflow "reject-publish"',
        'queue "v": deadLetterStrategy "at-least-once" needs queueType "quorum"'
      ]
    },
    "a quorum queue that is declared as transient": {
      of: [queue("q", { queueType: "quorum", durable: false }), AmqpTopology.retryQueues("w", [1], { durable: false })],
      says: ['queue "q": a quorum queue is durable', 'queue "w.delay.1": a quorum queue is durable']
    },
    "options of delay queues that do not exist, or are not valid": {
      of: [
        AmqpTopology.retryQueues("w", [1], { queuetype: "classic" } as {}),
        AmqpTopology.retryQueues("v", [1], { durable: "no" as unknown as boolean }),
        AmqpTopology.retryQueues("u", [1], { queueType: "exclusive" as "classic" }),
        AmqpTopology.workQueue("t", { retryDelays: [1], retryQueueType: "stream" as "classic" })
      ],
      says: [
        "AmqpTopology.retryQueues: queuetype: expected queueType (rename or remove it), got an unknown option",
        'AmqpTopology.retryQueues: durable: expected true or false, got "no"',
        'AmqpTopology.retryQueues: queueType: expected "classic" or "quorum", got "exclusive"',
        'AmqpTopology.workQueue: retryQueueType: expected "classic" or "quorum", got "stream"'
      ]
    },
    "values that are not parts": {
      of: [undefined, "orders", [queue("orders")], { queue: "orders" }] as unknown as ReadonlyArray<AmqpTopology.Part>,
      says: ["got undefined. ", 'got "orders". ', "got an array. ", "got an object. "]
    },
    "retries that are dropped while their work queue is full": {
      of: [
        AmqpTopology.workQueue("w", {
          maxLength: 1,
          overflow: "reject-publish",
          retryDelays: [1],
          retryQueueType: "classic"
        }),
        AmqpTopology.workQueue("v", {
          queueType: "quorum",
          maxLengthBytes: 1,
          retryDelays: [1],
          retryQueueType: "classic"
        })
      ],
      says: [
        'queue "w.delay.1": its messages expire into queue "w", which refuses them when it is full',
        'queue "v.delay.1": its messages expire into queue "v", which refuses them when it is full'
      ]
    },
    "retries that are dead-lettered and still come back": {
      of: [AmqpTopology.workQueue("w", { maxLength: 1, overflow: "reject-publish-dlx", retryDelays: [1] })],
      says: ['queue "w": with overflow "reject-publish-dlx"']
    },
    "a dead-letter queue that drops messages when it is full": {
      of: [
        AmqpTopology.workQueue("w", { queueType: "quorum", deadLetterQueue: { maxLength: 1 } }),
        AmqpTopology.workQueue("v", { deadLetterQueue: { maxLengthBytes: 1, overflow: "reject-publish" } })
      ],
      says: ['queue "w.dlq": when it is full, it drops', 'queue "v.dlq": when it is full, it refuses']
    },
    "a queue without a name": { of: [queue("")], says: ["use AmqpChannel's queueDeclare"] },
    "an exchange without a name": { of: [exchange("", "direct")], says: ["the default exchange always exists"] },
    "a name that is reserved for the broker": {
      of: [queue("amq.mine"), exchange("amq.topic", "topic")],
      says: ['exchange "amq.topic": names that begin with "amq."', 'queue "amq.mine": names that begin with "amq."']
    },
    "a name that the broker would change": { of: [queue("a\nb")], says: ["line breaks"] },
    "a name of more than 255 bytes": {
      of: [queue("ü".repeat(128)), exchange("x".repeat(256), "fanout")],
      says: ["256 bytes", "256 bytes"]
    },
    "a routing key of more than 255 bytes": {
      of: [exchange("x", "topic"), queue("q"), bind("q", "x", "k".repeat(256))],
      says: ["routingKey"]
    },
    "options with wrong values": {
      of: [
        queue("q", { messageTtl: "soon" as never }),
        queue("r", { ttl: 1000 } as never),
        exchange("x", "topic", { durable: "yes" as never }),
        bind("q", "x", "k", { arguments: { f: (() => 1) as never } })
      ],
      says: ['exchange "x": durable', 'queue "q": messageTtl', 'queue "r": ttl', 'binding of queue "q"']
    },
    "values that are not text": {
      of: [
        exchange(1 as never, "topic"),
        queue("q", { deadLetterExchange: 2 as never }),
        bind("q", 3 as never, 4 as never)
      ],
      says: ["exchange 1: name", 'queue "q": deadLetterExchange', "routingKey", "exchange 3 is not declared"]
    },
    "an exchange without a type": { of: [exchange("x", undefined as never)], says: ['exchange "x": its type'] },
    "bindings of exchanges in a cycle": {
      of: [
        exchange("a", "topic"),
        exchange("b", "topic"),
        AmqpTopology.exchangeBinding("b", "a", "k"),
        AmqpTopology.exchangeBinding("a", "b", "l")
      ],
      says: ['bindings of exchanges form a cycle: "a" -> "b" -> "a"']
    },
    "an exchange bound to itself": {
      of: [exchange("a", "topic"), AmqpTopology.exchangeBinding("a", "a", "#")],
      says: ['"a" -> "a"']
    },
    "alternate exchanges in a cycle": {
      of: [
        exchange("a", "topic", { alternateExchange: "b" }),
        exchange("b", "topic", { alternateExchange: "c" }),
        exchange("c", "topic", { alternateExchange: "a" })
      ],
      says: ['alternate exchanges form a cycle: "a" -> "b" -> "c" -> "a"']
    },
    "expired messages that expire again where they come from": {
      of: [
        queue("a", { messageTtl: 1000, deadLetterExchange: "", deadLetterRoutingKey: "b" }),
        queue("b", { messageTtl: 1000, deadLetterExchange: "", deadLetterRoutingKey: "a" })
      ],
      says: ['dead letters form a cycle, "a" -> "b" -> "a"']
    },
    "a retry cycle of a queue that also dead-letters what is delivered too often": {
      of: [
        queue("a", { queueType: "quorum", deliveryLimit: 3, deadLetterExchange: "", deadLetterRoutingKey: "a.retry" }),
        queue("a.retry", { messageTtl: 1000, deadLetterExchange: "", deadLetterRoutingKey: "a" })
      ],
      says: ["RabbitMQ drops a message that returns this way"]
    },
    "a retry cycle of a queue with a maximum, whose overflow is part of a cycle": {
      of: [
        exchange("retry", "fanout"),
        queue("a", { maxLength: 10, deadLetterExchange: "retry" }),
        queue("a.retry", { messageTtl: 1000, deadLetterExchange: "", deadLetterRoutingKey: "a" }),
        bind("a.retry", "retry")
      ],
      says: ["RabbitMQ drops a message that returns this way"]
    },
    "a cycle through bound exchanges, patterns and an alternate exchange": {
      of: [
        exchange("events", "topic"),
        exchange("inner", "direct", { alternateExchange: "rest" }),
        exchange("rest", "fanout"),
        AmqpTopology.exchangeBinding("inner", "events", "order.*.failed"),
        queue("a", { messageTtl: 1000, deadLetterExchange: "events" }),
        bind("a", "events", "order.#"),
        queue("b", { messageTtl: 1000, deadLetterExchange: "", deadLetterRoutingKey: "a" }),
        bind("b", "rest")
      ],
      says: ['"a" -> "a"']
    },
    "a cycle through an exchange bound to another": {
      of: [
        exchange("outer", "topic"),
        exchange("inner", "direct"),
        AmqpTopology.exchangeBinding("inner", "outer", "failed.*"),
        queue("a", { messageTtl: 1000, deadLetterExchange: "outer", deadLetterRoutingKey: "failed.a" }),
        bind("a", "inner", "failed.a")
      ],
      says: ['"a" -> "a"']
    },
    "a cycle through an alternate exchange": {
      of: [
        exchange("dlx", "direct", { alternateExchange: "rest" }),
        exchange("rest", "fanout"),
        queue("a", { messageTtl: 1000, deadLetterExchange: "dlx", deadLetterRoutingKey: "k" }),
        bind("a", "rest"),
        queue("b"),
        bind("b", "dlx", "other")
      ],
      says: ['"a" -> "a"']
    },
    "overflow that comes back at once, as a loss": {
      of: [queue("a", { maxLength: 1, deadLetterExchange: "", deadLetterRoutingKey: "a" })],
      says: ["RabbitMQ drops a message that returns this way"]
    },
    "dead letters to the default exchange by their own key": {
      of: [queue("a", { messageTtl: 1000, deadLetterExchange: "" })],
      says: ['dead letters form a cycle, "a" -> "a"']
    },
    "rejected messages that come back at once": {
      of: [
        exchange("again", "direct"),
        queue("a", { deadLetterExchange: "again", deadLetterRoutingKey: "k" }),
        bind("a", "again", "k")
      ],
      says: ['dead letters form a cycle without a pause, "a" -> "a"']
    }
  }

  for (const [name, { of, says }] of Object.entries(mistakes)) {
    it(`reports ${name}`, () => {
      const issues = AmqpTopology.check(make(...of))
      assert.lengthOf(issues, says.length, issues.join("\n"))
      says.forEach((words, i) => assert.include(issues[i], words))
    })
  }

  it("reports all mistakes at once", () => {
    const all = Object.values(mistakes).filter(({ says }) => says.length === 1)
    const parts = all.flatMap(({ of }, i) =>
      // Each case has its own names, so that one mistake does not hide another.
      JSON.parse(
        JSON.stringify(of, (key, value) =>
          ["name", "source", "destination", "deadLetterExchange", "deadLetterRoutingKey", "alternateExchange"].includes(
            key
          ) &&
          typeof value === "string" &&
          value !== "" &&
          !value.startsWith("amq.")
            ? `${i}.${value}`.slice(0, 250)
            : value
        )
      )
    )
    assert.isAtLeast(AmqpTopology.check(make(...parts)).length, all.length - 3)
  })

  const correct: Record<string, ReadonlyArray<AmqpTopology.Part>> = {
    "an empty topology": [],
    "external queues and exchanges": [
      dead,
      AmqpTopology.externalQueue("theirs"),
      queue("q", { deadLetterExchange: "dead" }),
      queue("r", { deadLetterExchange: "", deadLetterRoutingKey: "theirs" }),
      bind("theirs", "dead")
    ],
    "the exchanges of every virtual host": [
      queue("q", { deadLetterExchange: "amq.fanout" }),
      bind("q", "amq.topic", "#"),
      AmqpTopology.exchangeBinding("amq.direct", "amq.topic", "k"),
      exchange("x", "topic", { alternateExchange: "amq.fanout" })
    ],
    "a declaration of what another module calls external": [
      AmqpTopology.externalQueue("q"),
      queue("q"),
      bind("q", "amq.topic")
    ],
    "two queues that dead-letter to the same": [
      queue("a", { messageTtl: 1, deadLetterExchange: "", deadLetterRoutingKey: "c" }),
      queue("b", { messageTtl: 1, deadLetterExchange: "", deadLetterRoutingKey: "c" }),
      queue("c", { maxLength: 1 })
    ],
    "a retry cycle: rejected, delayed, back": [
      exchange("orders", "topic"),
      exchange("orders.retry", "fanout"),
      queue("orders", { queueType: "quorum", deadLetterExchange: "orders.retry" }),
      bind("orders", "orders", "#"),
      queue("orders.retry", { messageTtl: "10 seconds", deadLetterExchange: "orders" }),
      bind("orders.retry", "orders.retry")
    ],
    "a retry cycle of a queue with a maximum that refuses publishes": [
      queue("a", { maxLength: 1, overflow: "reject-publish", deadLetterExchange: "", deadLetterRoutingKey: "b" }),
      queue("b", {
        queueType: "quorum",
        overflow: "reject-publish",
        deadLetterStrategy: "at-least-once",
        messageTtl: 1,
        deadLetterExchange: "",
        deadLetterRoutingKey: "a"
      })
    ],
    "a work queue that refuses when it is full, and its delay queues": [
      AmqpTopology.workQueue("w", { maxLength: 1, overflow: "reject-publish", retryDelays: [1] }),
      AmqpTopology.workQueue("v", { queueType: "quorum", maxLengthBytes: 1, retryDelays: [1] })
    ],
    "a work queue whose overflow is dead-lettered": [
      AmqpTopology.workQueue("w", { maxLength: 1, retryDelays: [1], retryQueueType: "classic" })
    ],
    "a full dead-letter queue whose dead letters wait in the work queue, or continue": [
      AmqpTopology.workQueue("w", {
        queueType: "quorum",
        deadLetterQueue: { maxLength: 1, overflow: "reject-publish" }
      }),
      AmqpTopology.workQueue("v", { deadLetterQueue: { maxLength: 1, deadLetterExchange: "amq.fanout" } })
    ],
    "a transient work queue with delay queues, which are durable": [
      AmqpTopology.workQueue("w", { durable: false, retryDelays: [1] })
    ],
    "dead letters by keys that lead elsewhere": [
      exchange("dlx", "direct"),
      queue("a", { messageTtl: 1, deadLetterExchange: "dlx", deadLetterRoutingKey: "a.dead" }),
      queue("a.dead", { messageTtl: 1, deadLetterExchange: "dlx", deadLetterRoutingKey: "b.dead" }),
      queue("b.dead"),
      bind("a", "dlx", "a"),
      bind("a.dead", "dlx", "a.dead"),
      bind("b.dead", "dlx", "b.dead")
    ],
    "a cycle through an alternate exchange that is never needed": [
      exchange("dlx", "direct", { alternateExchange: "rest" }),
      exchange("rest", "fanout"),
      queue("a", { messageTtl: 1000, deadLetterExchange: "dlx", deadLetterRoutingKey: "k" }),
      bind("a", "rest"),
      queue("b"),
      bind("b", "dlx", "k")
    ],
    "an exchange bound by two ways to another": [
      exchange("a", "topic"),
      exchange("b", "topic"),
      exchange("c", "topic"),
      AmqpTopology.exchangeBinding("b", "a", "#"),
      AmqpTopology.exchangeBinding("c", "a", "#"),
      AmqpTopology.exchangeBinding("c", "b", "#")
    ],
    "an alternate exchange that the other is bound to": [
      exchange("a", "topic", { alternateExchange: "b" }),
      exchange("b", "topic"),
      AmqpTopology.exchangeBinding("a", "b", "again.#")
    ],
    "the usual shapes": [
      AmqpTopology.workQueue("w", { queueType: "quorum", deliveryLimit: 5, messageTtl: 1, retryDelays: [1, "1 hour"] }),
      AmqpTopology.publishSubscribe("p", { a: {}, b: { routingKeys: ["x", "y.*"] } }),
      AmqpTopology.publishSubscribe("f", { c: {} }, { type: "fanout" })
    ]
  }
  for (const [name, parts] of Object.entries(correct)) {
    it(`accepts ${name}`, () => assert.deepStrictEqual(AmqpTopology.check(make(...parts)), []))
  }

  const patterns: ReadonlyArray<readonly [pattern: string, key: string, matches: boolean]> = [
    ["#", "a", true],
    ["*", "a", true],
    ["*", "a.b", false],
    ["a.#", "a", true],
    ["#.a", "b.a.b.a", true],
    ["a.#.b.*.c", "a.x.b.y.b.z.c", true],
    ["a.#.b.*.c", "a.x.b.y.b.z", false],
    ["#.#", "a", true],
    ["a.*.#", "a", false],
    ["", "a", false]
  ]
  for (const [pattern, key, matches] of patterns) {
    it(`knows that the pattern "${pattern}" ${matches ? "takes" : "does not take"} "${key}"`, () => {
      const topology = make(
        exchange("x", "topic"),
        queue("q", { messageTtl: 1, deadLetterExchange: "x", deadLetterRoutingKey: key }),
        bind("q", "x", pattern)
      )
      assert.lengthOf(AmqpTopology.check(topology), matches ? 1 : 0)
    })
  }

  it("takes a single part", () => {
    assert.deepStrictEqual(AmqpTopology.check(queue("orders")), [])
    assert.deepStrictEqual(AmqpTopology.check(dead), [])
    assert.lengthOf(AmqpTopology.check(bind("q", "x")), 2)
    const [mistake, ...others] = AmqpTopology.check([queue("orders")] as unknown as AmqpTopology.Part)
    assert.include(mistake, "combine them with AmqpTopology.make")
    assert.lengthOf(others, 0)
  })

  it("checks a large topology quickly", () => {
    const parts = Array.from({ length: 1000 }, (_, i) => [
      exchange(`x${i}`, "topic"),
      queue(`q${i}`, { messageTtl: 1, deadLetterExchange: `x${(i + 1) % 1000}` }),
      bind(`q${i}`, `x${i}`, `k.${i}.#`)
    ]).flat()
    const started = performance.now()
    assert.deepStrictEqual(AmqpTopology.check(make(...parts)), [])
    assert.isBelow(performance.now() - started, 10_000)
  })
})
