// npm test: runs every test, with whatever broker this machine offers. Further arguments are passed to vitest.
// With `--untouched`, amqplib is frozen, and a test file that uses more of it than its declared API fails.
// With `--broker`, it runs only the files whose results depend on the broker's version.
import { ensureDependencies } from "./dependencies.mjs"
import { run } from "./run.mjs"
import { testFiles, usesBroker } from "./testFiles.mjs"

ensureDependencies()
const own = new Set(["--untouched", "--broker"])
const args = process.argv.slice(2)
const rest = args.filter((arg) => !own.has(arg))
if (args.includes("--untouched")) process.env.EFFECT_AMQP_UNTOUCHED = "1"

// Files that show what others test in depth: docs/pika.md, other pages and the README, the packages as they are installed, the
// bridge to Effect 3, the examples, applications on another framework, and the command line in a terminal.
const sameOnEveryBroker =
  /\.browser\.test|\/pika\/|\.docs\.test|\/(readme|packages|deploy|fastify|shop|cli\.terminal)\.test|packages\/(?:examples|platform|sql)\//
const dependsOnVersion = (file) => usesBroker(file) && !sameOnEveryBroker.test(file)
const files = args.includes("--broker") ? testFiles().filter(dependsOnVersion) : []
run(["node_modules/vitest/vitest.mjs", "run", "--config", "vitest.workspace.ts", ...files, ...rest])
