// npm run docs: builds the site in site/dist, and with --serve also serves it. TypeDoc needs TypeScript 6, and the packages
// are built with TypeScript 7. So TypeDoc has a folder and a lock file of its own, and is installed when it is needed.
import { join } from "node:path"
import { ensureDependencies, root } from "./dependencies.mjs"
import { run } from "./run.mjs"

ensureDependencies()
ensureDependencies(join(root, "site"))
run(["site/build.mjs", ...process.argv.slice(2)])
