// npm run client: bundles the modules of packages/http/client into the dashboard's script, and writes a module that
// holds its text. With --check, as in npm run check: fails when the module in the repository is out of date.
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { ensureDependencies, root } from "./dependencies.mjs"

ensureDependencies()
const { buildSync } = await import("esbuild")

const entry = "packages/http/client/main.ts"
const path = "packages/http/src/internal/dashboard/script.generated.ts"

const { outputFiles } = buildSync({
  absWorkingDir: root,
  entryPoints: [entry],
  bundle: true,
  write: false,
  format: "iife",
  target: "es2020",
  minify: true,
  // Short lines make the diffs of the file readable.
  lineLimit: 120
})
const script = outputFiles[0].text

// In a page these end a script, or change how its end is found.
const ending = /<\/script|<script|<!--/i.exec(script)
if (ending !== null) throw new Error(`${entry}: a script in a page cannot contain ${ending[0]}`)

const text = script.replaceAll(/\\|`|\$\{/g, "\\$&")
const module = `// Made by \`npm run client\` from ${entry}. Do not edit.\nexport const script = \`${text}\`\n`

if (!process.argv.includes("--check")) {
  writeFileSync(join(root, path), module)
} else if (readFileSync(join(root, path), "utf8").replaceAll("\r\n", "\n") !== module) {
  console.error(`${path} is out of date with ${entry}: run npm run client, and commit the result`)
  process.exitCode = 1
}
