// npm run test:memory: the suites that talk to a broker, against the memory broker over its socket. With `--short`, those that take
// seconds. Further arguments are passed to vitest.
//
// Other suites cannot run there: they evaluate Erlang in the broker or run rabbitmqctl (users, permissions, leaders, limits), use
// streams, transactions or a cluster, or pause and kill the broker's process.
import { ensureDependencies } from "./dependencies.mjs"
import { run } from "./run.mjs"

const files = {
  short: ["AmqpChannel.test", "AmqpTopology.test"],
  long: [
    "AmqpConsumer.batch.test",
    "AmqpConsumer.delayQueues.test",
    "AmqpConsumer.ends.test",
    "AmqpConsumer.redeliver.test",
    "AmqpConsumer.requeue.test",
    "AmqpConsumer.retry.test",
    "AmqpConsumer.retryHeaders.test",
    "AmqpConsumer.test",
    "AmqpMessage.roundtrip.test",
    "AmqpPool.test",
    "AmqpRpc.test"
  ]
}

/** Tests of these files that cannot run there, and why. */
const exceptions = {
  "a user that may not declare can verify what another user has declared": "permissions",
  "a 406 names the argument that the broker does not accept": "priority queues",
  "a delay queue that cannot be declared fails the consumer when it starts": "permissions",
  "a retry to a full quorum queue waits until there is room": "a setting of the node",
  "a retry to a full classic queue waits until there is room": "a setting of the node",
  "a retry that a delay queue without a leader does not confirm is requeued and handled": "a queue without a leader"
}

ensureDependencies()
const args = process.argv.slice(2)
const isShort = args.includes("--short")
const titles = Object.keys(exceptions).join("|")
process.env.AMQP_TEST_BROKER = "memory"
delete process.env.AMQP_URL
// The run has a broker of its own, also inside of another run.
delete process.env.EFFECT_AMQP_TEST_LOBBY
run([
  "node_modules/vitest/vitest.mjs",
  "run",
  "--config",
  "vitest.workspace.ts",
  ...(isShort ? files.short : [...files.short, ...files.long]).map((file) => `packages/core/test/${file}`),
  "--testNamePattern",
  `^(?!.*(?:${titles}))`,
  ...args.filter((arg) => arg !== "--short")
])
