// npm start: the order service of packages/examples, on HTTP, with whatever broker this machine offers.
import { ensureDependencies } from "./dependencies.mjs"
import { run } from "./run.mjs"

ensureDependencies()
run(["--conditions=@effect-amqp/source", "packages/examples/src/orders.ts", ...process.argv.slice(2)])
