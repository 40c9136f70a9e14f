/**
 * Attacks a gateway for `SECONDS` (the first argument, default 60) on the broker at `AMQP_URL`, and prints the results
 * of a well-behaved client. It exits with 1 unless nothing was lost, 99 of 100 publishes were answered and delivered
 * within 100 ms, and the gateway, with a heap of 128 MB, stayed below 300 MB. Further arguments name the hostile
 * clients that take part. A name that does not exist, such as `none`, starts none of them.
 *
 *     AMQP_URL=amqp://guest:guest@127.0.0.1 node --conditions=@effect-amqp/source packages/http/test/programs/attack.ts 60
 */
import { Effect } from "effect"
import { attack } from "../support/attack.ts"

const [seconds = "60", ...only] = process.argv.slice(2)
const url = process.env["AMQP_URL"] ?? "amqp://guest:guest@127.0.0.1"
const options = { bundled: true, ...(only.length === 0 ? undefined : { only }) }
const outcome = await Effect.runPromise(Effect.scoped(attack(url, Number(seconds), options)))
console.log(JSON.stringify(outcome, null, 2))
const { answered, delivered, lost, memory } = outcome
if (lost > 0 || memory > 300e6 || answered.p99 > 100 || delivered.p99 > 100) process.exitCode = 1
