import { spawnSync } from "node:child_process"
const r = spawnSync("node_modules/.bin/node", ["--conditions=@effect-amqp/source", "packages/core/chaos/req.tmp.ts"], { stdio: "inherit" })
process.exit(r.status)
