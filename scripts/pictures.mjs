// npm run pictures: takes the dashboard's pictures in docs/images again. See
// packages/http/test/programs/dashboardPictures.ts.
import { spawnSync } from "node:child_process"
import { ensureDependencies, environment, node, root } from "./dependencies.mjs"

ensureDependencies()
const args = ["--conditions=@effect-amqp/source", "packages/http/test/programs/dashboardPictures.ts"]
const { status } = spawnSync(node, args, { cwd: root, env: environment(), stdio: "inherit" })
process.exit(status ?? 1)
