// npm run client: makes the dashboard's script, from the modules of packages/http/client, as a module that holds its text.
// With --check, as in npm run check: fails when the module that is there is another.
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
  // For what shows changes of a file by its lines.
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
  console.error(`${path} is not what ${entry} makes: run npm run client, and commit what it has made`)
  process.exitCode = 1
}
