// npm test: every test, against whatever broker this machine offers. Further arguments go to vitest.
// With `--untouched`, amqplib is frozen, and a test file fails that does to it what it does not declare.
// With `--broker`, only what depends on the version of the broker: files that use one, without those about the browser.
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { ensureDependencies, root } from "./dependencies.mjs"
import { run } from "./run.mjs"

ensureDependencies()
const own = new Set(["--untouched", "--broker"])
const args = process.argv.slice(2)
const rest = args.filter((arg) => !own.has(arg))
if (args.includes("--untouched")) process.env.EFFECT_AMQP_UNTOUCHED = "1"

const testFiles = () =>
  readdirSync(join(root, "packages"))
    .map((name) => `packages/${name}/test`)
    .filter((folder) => existsSync(join(root, folder)))
    .flatMap((folder) => readdirSync(join(root, folder)).map((file) => `${folder}/${file}`))
    .filter((file) => file.endsWith(".test.ts"))
const usesBroker = (file) => /TestBroker|support\/Cluster/.test(readFileSync(join(root, file), "utf8"))
const isOfBrowser = (file) => file.endsWith(".browser.test.ts")
const files = args.includes("--broker") ? testFiles().filter((file) => usesBroker(file) && !isOfBrowser(file)) : []
run(["node_modules/vitest/vitest.mjs", "run", "--config", "vitest.workspace.ts", ...files, ...rest])
