// npm test: every test, against whatever broker this machine offers. Further arguments go to vitest.
import { ensureDependencies } from "./dependencies.mjs"
import { run } from "./run.mjs"

ensureDependencies()
run(["node_modules/vitest/vitest.mjs", "run", "--config", "vitest.workspace.ts", ...process.argv.slice(2)])
