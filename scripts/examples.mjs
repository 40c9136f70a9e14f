// Type-checks every TypeScript example: those of the docstrings, of the README and of docs.
// Each becomes a module of its own in a folder that git does not see.
import { spawnSync } from "node:child_process"
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { environment, root } from "./dependencies.mjs"

const folder = join(root, ".doc-examples")
rmSync(folder, { recursive: true, force: true })
mkdirSync(folder)

let count = 0
for (const path of globSync(["README.md", "docs/*.md", "packages/*/README.md", "packages/*/src/**/*.ts"], {
  cwd: root
})) {
  const text = readFileSync(join(root, path), "utf8")
  // In a docstring every line begins with a star.
  const source = path.endsWith(".ts") ? text.replaceAll(/^[ \t]*\* ?/gm, "") : text
  let nth = 0
  for (const [, code] of source.matchAll(/^```ts\n(.*?)^```/gms)) {
    nth++
    count++
    const name = `${path.replaceAll(/[^\w]+/g, "-")}-${nth}.ts`
    writeFileSync(join(folder, name), `// From ${path}, example ${nth}.\n${code}\nexport {}\n`)
  }
}

writeFileSync(
  join(folder, "tsconfig.json"),
  JSON.stringify({
    extends: "../tsconfig.base.json",
    compilerOptions: {
      noEmit: true,
      composite: false,
      incremental: false,
      noUnusedLocals: false,
      noUnusedParameters: false,
      rewriteRelativeImportExtensions: false,
      allowImportingTsExtensions: true
    },
    include: ["*.ts"]
  })
)
const { status } = spawnSync("tsc", ["-p", folder], { cwd: root, env: environment(), stdio: "inherit" })
console.error(`${count} examples type-checked${status === 0 ? "" : ": some do not compile"}`)
process.exitCode = status ?? 1
