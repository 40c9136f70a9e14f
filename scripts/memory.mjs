// npm run test:memory: the suites that talk to a broker, against the memory broker over its socket. With `--short`, those that take
// seconds. Further arguments are passed to vitest. With `--check`, only the lists below are compared with the test files.
//
// Every test file that talks to a broker is below: as one that runs there, with the tests of it that cannot, or as one that
// cannot. A file that is neither is an error.
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { ensureDependencies, root } from "./dependencies.mjs"
import { run } from "./run.mjs"

const permissions = "permissions, which rabbitmqctl sets"
const setting = "a setting of the node"
const streams = "streams"
const transactions = "transactions"
const delayedRetries = "delayed retries"
const vhosts = "a second virtual host, which rabbitmqctl makes"
const plugins = "types of exchanges from plugins"
const leader = "a queue without a leader"
const internals = "it reads the broker's internal state"

const short = ["core/AmqpChannel", "core/AmqpTopology"]

/** The files that run there, with the tests that cannot, and why. */
const files = {
  "core/AmqpBaggage": {},
  "core/AmqpBroker": { "each broker has its own services, and effects that get them by its key": vhosts },
  "core/AmqpChannel": {},
  "core/AmqpChannel.interruptedOpen": {},
  "core/AmqpChannel.isolation": { "1,000 errors of every kind close no other channel": setting },
  "core/AmqpChannel.kinds": {
    "that succeeds commits what it published and acknowledged": transactions,
    "that fails, dies or is interrupted commits nothing": transactions,
    "that is rolled back by hand can settle its deliveries again": transactions,
    "whose commit the broker refuses fails": transactions,
    "gets mandatory messages that are routed to no queue back with its commit": transactions
  },
  "core/AmqpChannel.limits": { "learns the limit by losing a connection": permissions },
  "core/AmqpChannel.operations": {
    "are declared with each option as its x- argument": "priority queues",
    "reads a stream from the requested offset": streams
  },
  "core/AmqpChannel.options": {},
  "core/AmqpChannel.refusals": {},
  "core/AmqpChannel.versions": {
    "RabbitMQ 4.3 has added is refused before, because it would do nothing": delayedRetries,
    "failed pauses before a": delayedRetries,
    "returned pauses before a": delayedRetries,
    "ends one connection over the first, and later ones are refused with the remedy": setting
  },
  "core/AmqpConnection": {
    "to a virtual host that is down, as while its node starts": internals,
    "shows the client's name and properties at the broker": internals
  },
  "core/AmqpConnection.addresses": {},
  "core/AmqpConnection.conditionReporter": {},
  "core/AmqpConnection.handshake": {},
  "core/AmqpConnection.inbound": {},
  "core/AmqpConnection.refused": {
    "passes when the user exists again": permissions,
    "passes when the password is right again": permissions,
    "passes when the virtual host may be accessed again": permissions,
    "passes when a virtual host that was deleted exists again": vhosts
  },
  "core/AmqpConnection.secret": { "let a connection with a refreshed token outlive the old one": "tokens (OAuth 2)" },
  "core/AmqpConnection.undecodable": {},
  "core/AmqpConsumer": {},
  "core/AmqpConsumer.again": {
    "a content that the broker no longer accepts ends as the policy says": setting,
    "300 retries without permission end as the policy says": permissions
  },
  "core/AmqpConsumer.attempts": { "need permissions: without them handling continues": permissions },
  "core/AmqpConsumer.batch": {},
  "core/AmqpConsumer.delayQueues": {
    "a retry to a full": setting,
    "a retry that a delay queue without a leader does not confirm is requeued and handled": leader
  },
  "core/AmqpConsumer.ends": {},
  "core/AmqpConsumer.faults": {},
  "core/AmqpConsumer.health": {},
  "core/AmqpConsumer.inbox": { "uses the services of the consumer and a scope per delivery": streams },
  "core/AmqpConsumer.layerConsume": {},
  "core/AmqpConsumer.logLimiter": { "a stream's 300 failures write a few lines": streams },
  "core/AmqpConsumer.ownConnection": {},
  "core/AmqpConsumer.redeliver": {},
  "core/AmqpConsumer.requeue": {},
  "core/AmqpConsumer.retry": { "a delay queue that cannot be declared fails the consumer when it starts": permissions },
  "core/AmqpConsumer.retryHeaders": {},
  "core/AmqpConsumer.stop": {},
  "core/AmqpConsumer.stream": {},
  "core/AmqpConsumer.timeout": {
    "its late ack is DeliverySettled, its message is delivered again, and the log says why, with the remedy": setting,
    "a consumer that does not resubscribe ends with the reason": setting,
    "a timeout that is not known to the client is named as a possible reason": setting
  },
  "core/AmqpConsumer.waiting": {},
  "core/AmqpDeadLetters": {},
  "core/AmqpDeadLetters.faults": {
    "ends when its queue was deleted and declared again as a stream": streams,
    "on a queue that does not exist, and on a stream": streams,
    "on a stream whose type this user may not find out": streams,
    "without the permission to read, or to publish": permissions
  },
  "core/AmqpDeadLetters.hostile": {},
  "core/AmqpDeadLetters.reasons": { "if the user may not write to the exchange": permissions },
  "core/AmqpDeadLetters.shared": {},
  "core/AmqpError": { "a user without permission: AccessRefused, 403": permissions },
  "core/AmqpEvent": {},
  "core/AmqpLogging": { "of kind transaction is noticed, also after a period without borrows": transactions },
  "core/AmqpMessage.again": { "a routing key that is not UTF-8 is kept": "names and keys that are not UTF-8" },
  "core/AmqpMessage.deep": {},
  "core/AmqpMessage.encoded": {},
  "core/AmqpMessage.headers": {},
  "core/AmqpMessage.roundtrip": {},
  "core/AmqpMetrics": {},
  "core/AmqpMetrics.times": {},
  "core/AmqpPool": {},
  "core/AmqpPool.interruption": {},
  "core/AmqpPublisher": { "is recognized by what it did: wrong user, forbidden topic": permissions },
  "core/AmqpPublisher.all": {},
  "core/AmqpPublisher.flow": {},
  "core/AmqpRpc": {},
  "core/AmqpRpc.content": {},
  "core/AmqpRpc.replies": {
    "that is larger than the broker accepts fails its own call with RemoteFailure": setting,
    "of a user that may not reply costs no channel": permissions
  },
  "core/AmqpTopology": {
    "a user that may not declare can verify what another user has declared": permissions,
    "a 406 names the argument that the broker does not accept": "priority queues"
  },
  "core/AmqpTopology.lazyConnect": {},
  "core/AmqpTopology.redeclare": {
    "an exchange whose plugin is missing costs no other client the connection": plugins
  },
  "core/AmqpTopology.shapes": {},
  "core/AmqpTracing": { "no span holds contents, header values or the password": permissions },
  "core/AmqpTracing.otlp": {},
  "http/AmqpDashboard.incident": {},
  "http/AmqpDashboard.queues": {
    "has the counts of the consumers' queues and of others, of streams too": streams,
    "says which queues the user may not see": permissions,
    "the last counts stay with their time while the broker is away": "it stops the broker's listeners"
  },
  "http/AmqpDeadLettersHttp": {},
  "http/AmqpGateway": {},
  "http/AmqpGateway.attack": {},
  "http/AmqpGateway.doors": {},
  "http/AmqpGateway.faults": {},
  "http/AmqpGateway.refusals": {},
  "http/AmqpGateway.strangers": {
    "publishes larger messages than the broker accepts fails no publish of others": setting,
    "publishes where the service's user has no permission fails no publish of others": permissions
  },
  "http/AmqpGateway.webSocket": {},
  "http/AmqpHttp": {},
  "http/AmqpHttp.endings": {},
  "http/AmqpHttp.errors": {},
  "http/AmqpHttp.load": {},
  "http/AmqpHttp.restart": {},
  "http/AmqpHttp.telemetry": { "of two brokers are separate": vhosts },
  "http/AmqpHttpApi": {}
}

/** The files that cannot run there, and why. */
const others = {
  "core/Amqp.shutdown": "it pauses and kills the broker's process",
  "core/AmqpChannel.deliveryLimit": internals,
  "core/AmqpChannel.streams": streams,
  "core/AmqpChannel.unsupported": streams,
  "core/AmqpConnection.access": permissions,
  "core/AmqpConnection.cluster": "a cluster",
  "core/AmqpConnection.faults": "it restarts the broker's process and ends its listeners",
  "core/AmqpConnection.login": "it needs a private RabbitMQ with TLS",
  "core/AmqpConnection.neighbours": plugins,
  "core/AmqpConsumer.alone": leader,
  "core/AmqpConsumer.delayQueues.cluster": "a cluster",
  "core/AmqpConsumer.outage": "it stops the broker's process and its queues' processes",
  "core/AmqpConsumer.streamCuts": streams,
  "core/AmqpConsumer.streams": streams,
  "core/AmqpPublisher.outage": "it stops the broker's process",
  "core/AmqpTopology.cluster": "a cluster",
  "core/MemoryBroker.differential": "it compares the memory broker with RabbitMQ",
  "core/MemoryBroker.rawClients": "it compares the memory broker with RabbitMQ",
  "core/MemoryBroker": "it makes its own memory brokers",
  "core/TestBroker": "it is about the ways to a real RabbitMQ",
  "core/TestBroker.layerAmqp": "it is about a real RabbitMQ",
  "core/AmqpDeadLetters.streams": streams,
  "core/driver.bundles": "it compares the drivers' bundles, with any broker",
  "core/driver.neighbours": "it is about other libraries in the process, with any broker",
  "core/driver.otherRuntimes": "it is about Bun and Deno, with any broker",
  "core/driver.untouched": "it is about amqplib's own objects, with any broker",
  "core/packages": "it is about the packages as npm packs them, with any broker",
  "http/AmqpHttp.brokers": vhosts,
  "http/AmqpHttp.outage": "it stops the broker's listeners, and a setting of the node",
  "sql/AmqpInbox": "it needs PostgreSQL, and is about the database",
  "sql/AmqpOutbox": "it needs PostgreSQL, and is about the database",
  "sql/AmqpOutbox.faults": "it needs PostgreSQL, and is about the database",
  "sql/AmqpOutbox.order": "it needs PostgreSQL, and is about the database",
  "sql/AmqpOutbox.relay": "it needs PostgreSQL, and is about the database",
  "sql/AmqpOutbox.tracing": "it needs PostgreSQL, and is about the database",
  "sql/PgOutbox": "it needs PostgreSQL, and is about the database"
}

const pathOf = (name) => {
  const [folder, file] = name.split("/")
  return `packages/${folder}/test/${file}.test.ts`
}

const textOf = (name) => readFileSync(join(root, pathOf(name)), "utf8")

const facing = ["core", "http", "sql"].flatMap((folder) =>
  readdirSync(join(root, "packages", folder, "test"))
    .filter((file) => file.endsWith(".test.ts"))
    .map((file) => `${folder}/${file.replace(/\.test\.ts$/, "")}`)
    .filter((name) => /TestBroker|support\/Cluster/.test(textOf(name)))
)

/** A title may have a parameter in its source. */
const isIn = (text, title) => text.includes(title.slice(0, 24)) || text.includes(title.slice(-24))

const mistakes = [
  ...facing
    .filter((name) => !(name in files) && !(name in others))
    .map((name) => `${name}: expected in one of the lists of scripts/memory.mjs, since it talks to a broker, got none`),
  ...[...Object.keys(files), ...Object.keys(others)]
    .filter((name) => !facing.includes(name))
    .map((name) => `${name}: expected a test file that talks to a broker, got none`),
  ...Object.keys(files)
    .filter((name) => name in others)
    .map((name) => `${name}: expected in one list, got both`),
  ...Object.entries(files).flatMap(([name, exceptions]) =>
    facing.includes(name)
      ? Object.keys(exceptions)
          .filter((title) => !isIn(textOf(name), title))
          .map((title) => `${name}: expected a test "${title}", got none`)
      : []
  )
]
if (mistakes.length > 0) {
  console.error(mistakes.join("\n"))
  process.exit(1)
}
if (process.argv.includes("--check")) process.exit(0)

ensureDependencies()
const args = process.argv.slice(2)
const isShort = args.includes("--short")
const chosen = isShort ? short : Object.keys(files)
const titles = chosen
  .flatMap((name) => Object.keys(files[name]))
  .map((title) => title.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"))
process.env.AMQP_TEST_BROKER = "memory"
delete process.env.AMQP_URL
// The run has a broker of its own, also inside of another run.
delete process.env.EFFECT_AMQP_TEST_LOBBY
run([
  "node_modules/vitest/vitest.mjs",
  "run",
  "--config",
  "vitest.workspace.ts",
  ...chosen.map(pathOf),
  "--testNamePattern",
  `^(?!.*(?:${titles.join("|")}))`,
  ...args.filter((arg) => arg !== "--short")
])
