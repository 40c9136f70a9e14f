/** The workloads. Each has an `id`, and the names of the `groups` that it belongs to. */
import type { Contest, Entry } from "./contest.ts"
import * as Process from "./process.ts"
import type { Setting } from "./peers/peer.ts"

export interface Workload extends Contest {
  readonly groups: ReadonlyArray<string>
  /** Whether it is part of the quick form. */
  readonly quick?: boolean
}

const of = (...names: ReadonlyArray<Entry["name"]>): ReadonlyArray<Entry> => names.map((name) => ({ name }))

const clients = of(
  "amqplib",
  "effect-amqp",
  "rabbitmq-client",
  "@cloudamqp/amqp-client",
  "@cloudamqp/amqp-client, channel",
  "amqp-connection-manager",
  "rascal"
)

/** Present where Debian's python3-pika is installed. Pika inspired this library. */
const pika = Process.pika === undefined ? [] : of("Pika")

const without = (entries: ReadonlyArray<Entry>, ...names: ReadonlyArray<Entry["name"]>) =>
  entries.filter(({ name }) => !names.includes(name))

// --- Pools -----------------------------------------------------------------------------------------------------------

const borrow: Workload = {
  id: "borrow",
  groups: ["pool"],
  quick: true,
  title: "Borrow and return an idle channel",
  kind: "borrow",
  unit: "borrows",
  entries: of(
    "Effect's Pool, without channels",
    "effect-amqp",
    "effect-amqp, AmqpPool.get",
    "effect-amqp, AmqpChannel.use",
    "amqplib + generic-pool",
    "amqplib + tarn"
  ),
  check: "contender",
  first: 20_000
}

const contended = (width: number): Workload => ({
  id: `contend-${width}`,
  groups: ["pool", "contend"],
  quick: width === 64,
  title: `Borrow one of 8 channels, ${width.toLocaleString("en")} borrowers`,
  kind: "contend",
  unit: "borrows",
  entries: of("amqplib", "effect-amqp", "amqplib + generic-pool", "amqplib + tarn"),
  setting: { width, channels: 8 },
  check: "contender",
  first: 5000
})

// --- Publishing ------------------------------------------------------------------------------------------------------

const publish: Workload = {
  id: "publish",
  groups: [],
  quick: true,
  title: "Publish without confirm, until the broker has answered a later method",
  kind: "publish",
  entries: [...without(clients, "@cloudamqp/amqp-client, channel"), ...pika],
  check: "published",
  first: 5000,
  most: 100_000
}

const confirm = (width: number, first: number): Workload => ({
  id: `confirm-${width}`,
  groups: ["confirm"],
  quick: true,
  title:
    width === 1 ? "Confirmed publish, one at a time" : `Confirmed publish, ${width.toLocaleString("en")} in flight`,
  kind: "confirm",
  entries: [...clients, ...(width === 1 ? pika : []), ...(width === 1000 ? of("effect-amqp, publishAll") : [])],
  setting: { width },
  check: "published",
  first
})

const borrowed: Workload = {
  id: "borrowed",
  groups: ["confirm", "pool"],
  quick: true,
  title: "Confirmed publish, one borrowed channel per message, 64 at a time",
  kind: "borrowed",
  entries: of("amqplib", "effect-amqp", "amqplib + generic-pool", "amqplib + tarn", "rascal"),
  // One channel per message in flight: rascal is faster that way.
  setting: { width: 64, channels: 64 },
  check: "published",
  first: 2000
}

// --- Consuming -------------------------------------------------------------------------------------------------------

const consume: Workload = {
  id: "consume",
  groups: [],
  quick: true,
  title: "Consume and acknowledge, prefetch 250",
  kind: "consume",
  entries: [...clients, ...of("effect-amqp, stream"), ...pika],
  check: "consumed",
  first: 5000,
  most: 100_000
}

const handle = (concurrency: number): Workload => ({
  id: `handle-${concurrency}`,
  groups: ["consume", "handle"],
  title: `Consume with a handler that waits once, ${concurrency} at a time, prefetch 250`,
  kind: "handle",
  entries: without(clients, "@cloudamqp/amqp-client, channel"),
  setting: { concurrency },
  check: "consumed",
  first: 3000,
  most: 100_000
})

// --- Requests --------------------------------------------------------------------------------------------------------

const rpc = (width: number): Workload => ({
  id: `rpc-${width}`,
  groups: ["rpc"],
  quick: true,
  title: `Request and reply, ${width} in flight`,
  kind: "rpc",
  unit: "requests",
  entries: of(
    "amqplib",
    "effect-amqp",
    "amqplib, without confirms",
    "rabbitmq-client",
    "@cloudamqp/amqp-client",
    "rascal"
  ),
  setting: { width, concurrency: 64 },
  check: "contender",
  first: width === 1 ? 500 : 2000
})

// --- Bodies and TLS --------------------------------------------------------------------------------------------------

const sizes = [
  ["128B", "128 B", 128],
  ["4KiB", "4 KiB", 4096],
  ["64KiB", "64 KiB", 65_536],
  ["1MiB", "1 MiB", 1_048_576]
] as const

// The broker keeps the messages in memory, and pages beyond some hundred MiB.
const most = (size: number) => Math.min(100_000, Math.floor((192 * 1_048_576) / size))

const bodies = sizes.flatMap(([id, name, size]): ReadonlyArray<Workload> => [
  {
    id: `confirm-${id}`,
    groups: ["bodies"],
    title: `Confirmed publish of ${name}, 64 in flight`,
    kind: "confirm",
    entries: without(clients, "@cloudamqp/amqp-client, channel"),
    setting: { width: 64, size },
    check: "published",
    first: Math.min(2000, most(size)),
    most: most(size)
  },
  {
    id: `consume-${id}`,
    groups: ["bodies"],
    title: `Consume and acknowledge, ${name}`,
    kind: "consume",
    entries: without(clients, "@cloudamqp/amqp-client, channel"),
    setting: { size },
    check: "consumed",
    first: Math.min(2000, most(size)),
    most: most(size)
  }
])

const tls: ReadonlyArray<Workload> = [
  {
    id: "tls-confirm",
    groups: ["tls"],
    title: "Confirmed publish over TLS, 64 in flight",
    kind: "confirm",
    entries: without(clients, "@cloudamqp/amqp-client, channel"),
    setting: { width: 64 },
    check: "published",
    first: 2000,
    tls: true
  },
  {
    id: "tls-consume",
    groups: ["tls"],
    title: "Consume and acknowledge over TLS",
    kind: "consume",
    entries: without(clients, "@cloudamqp/amqp-client, channel"),
    check: "consumed",
    first: 5000,
    most: 100_000,
    tls: true
  }
]

// --- HTTP ------------------------------------------------------------------------------------------------------------

const http: Workload = {
  id: "http",
  groups: [],
  quick: true,
  title: "POST to confirmed publish over HTTP, 64 connections",
  kind: "http",
  unit: "requests",
  entries: of("Fastify + amqplib", "effect-amqp on Effect's HTTP", "effect-amqp, one channel per request"),
  setting: { width: 64 },
  check: "published",
  first: 3000
}

const httpAlone: Workload = {
  ...http,
  quick: false,
  id: "http-alone",
  groups: ["http"],
  title: "The same route without AMQP",
  entries: of("Fastify without AMQP", "Effect's HTTP without AMQP"),
  check: "contender"
}

const httpFastify: Workload = {
  ...http,
  quick: false,
  id: "http-fastify",
  groups: ["http"],
  title: "POST to confirmed publish with Fastify, 64 connections",
  entries: of(
    "Fastify + amqplib",
    "effect-amqp on Fastify",
    "Fastify + amqplib, a channel per request",
    "effect-amqp on Fastify, a channel per request"
  )
}

// --- Effect 3 --------------------------------------------------------------------------------------------------------

/** The core on Effect 4, the package for Effect 3 that has it inside, and what an application writes by hand. */
const onEffect3 = (id: string, workload: Workload): Workload => ({
  ...workload,
  id,
  groups: ["effect3"],
  quick: false,
  title: `On Effect 3: ${workload.title}`,
  entries: of("effect-amqp", "effect-amqp on Effect 3", "Effect 3's Pool of amqplib's channels")
})

const effect3 = [
  onEffect3("effect3-confirm", confirm(64, 2000)),
  onEffect3("effect3-borrowed", borrowed),
  onEffect3("effect3-consume", consume)
]

// --- Scaling ---------------------------------------------------------------------------------------------------------

/** A contender with `count` of something. */
const withMany = (
  name: Entry["name"],
  count: number,
  noun: string,
  setting: (count: number) => Partial<Setting>
): Entry => ({
  name,
  label: `${name}, ${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`,
  setting: setting(count)
})

const onChannels = (name: Entry["name"], channels: number) =>
  withMany(name, channels, "channel", (channels) => ({ channels }))

const behind = (name: Entry["name"], waiting: number) =>
  withMany(name, waiting, "waiter", (waiting) => ({ width: 8 + waiting }))

const flat: ReadonlyArray<Workload> = [
  {
    id: "flat-channels",
    groups: ["flat"],
    title: "Confirmed publish, 64 in flight, in turns over many borrowed channels",
    kind: "spread",
    // The broker's answers are one frame per channel, too. The rows of amqplib show what that costs the reader.
    entries: [
      ...[1, 10, 100, 1000].map((channels) => onChannels("effect-amqp", channels)),
      ...[1, 1000].map((channels) => onChannels("amqplib", channels))
    ],
    setting: { width: 64 },
    check: "published",
    first: 2000
  },
  {
    id: "flat-waiters",
    groups: ["flat"],
    title: "Borrow while many wait for one of 8 channels",
    kind: "contend",
    unit: "borrows",
    // The rows of amqplib show what thousands of long-lived promises cost the garbage collector and the caches.
    entries: [
      ...[1, 100, 1000, 10_000].map((waiting) => behind("effect-amqp", waiting)),
      ...[1, 10_000].map((waiting) => behind("amqplib", waiting))
    ],
    setting: { channels: 8 },
    check: "contender",
    first: 20_000
  },
  {
    id: "flat-consumers",
    groups: ["flat"],
    title: "Consume and acknowledge, many consumers of one queue",
    kind: "consumers",
    entries: [1, 10, 100].map((consumers) =>
      withMany("effect-amqp", consumers, "consumer", (concurrency) => ({ concurrency }))
    ),
    setting: { prefetch: 250 },
    check: "consumed",
    first: 10_000,
    // Consumers are started in each run: opening a hundred channels takes as long as some thousand messages.
    least: 100_000,
    most: 100_000
  }
]

export const workloads: ReadonlyArray<Workload> = [
  borrow,
  contended(64),
  contended(1000),
  publish,
  confirm(1, 500),
  confirm(64, 3000),
  confirm(1000, 5000),
  borrowed,
  consume,
  handle(1),
  handle(100),
  rpc(1),
  rpc(64),
  http,
  httpAlone,
  httpFastify,
  ...bodies,
  ...tls,
  ...effect3,
  ...flat
]
