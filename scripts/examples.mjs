// Type-checks every TypeScript example: those of the docstrings, of the README and of docs. Each becomes a separate
// module in a folder that git ignores. An example whose first line is its file name, such as "// amqp.ts", can be imported
// by the other examples of its page. On a page with `npm install` commands, these install
// every package that its examples import.
import { spawnSync } from "node:child_process"
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { environment, root } from "./dependencies.mjs"

// Each next to the Effect that its examples are for.
const folder = join(root, ".doc-examples")
const ofEffect3 = join(root, "packages/platform/.doc-examples")
for (const each of [folder, ofEffect3]) {
  rmSync(each, { recursive: true, force: true })
  mkdirSync(each)
}
const isOfEffect3 = (path) => path === "docs/effect-3.md" || /^packages[\\/]platform[\\/]/.test(path)

const packageOf = (specifier) =>
  specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/")

/** The packages that the examples of a page import and its commands do not install. A page without commands is not checked. */
const notInstalled = (text) => {
  const words = [...text.matchAll(/^npm install ([^#\n]*)/gm)].flatMap(([, words]) => words.split(/\s+/))
  if (words.length === 0) return []
  const installed = new Set(words.map((word) => word.replace(/(?<=.)@[^/]*$/, "")))
  const examples = [...text.matchAll(/^```ts[^\n]*\n(.*?)^```/gms)].map(([, code]) => code).join("\n")
  const imported = [...examples.matchAll(/ from "([^".][^"]*)"/g)].map(([, specifier]) => specifier)
  const packages = imported.filter((specifier) => !specifier.startsWith("node:")).map(packageOf)
  return [...new Set(packages)].filter((name) => !installed.has(name))
}

let isInstallable = true
let count = 0
for (const path of globSync(["README.md", "docs/*.md", "packages/*/README.md", "packages/*/src/**/*.ts"], {
  cwd: root
})) {
  const text = readFileSync(join(root, path), "utf8")
  // In a docstring every line begins with an asterisk.
  const source = path.endsWith(".ts") ? text.replaceAll(/^[ \t]*\* ?/gm, "") : text
  const page = join(isOfEffect3(path) ? ofEffect3 : folder, path.replaceAll(/[^\w]+/g, "-"))
  for (const name of path.endsWith(".md") ? notInstalled(text) : []) {
    isInstallable = false
    console.error(`${path}: an example imports ${name}, which no \`npm install\` of the page installs`)
  }
  let nth = 0
  for (const [, code] of source.matchAll(/^```ts\n(.*?)^```/gms)) {
    nth++
    count++
    mkdirSync(page, { recursive: true })
    const [, name = `${nth}.ts`] = /^\/\/ ([\w.-]+\.ts)\n/.exec(code) ?? []
    writeFileSync(join(page, name), `// From ${path}, example ${nth}.\n${code}\nexport {}\n`)
  }
}

const compiles = (folder) => {
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({
      extends: join(root, "tsconfig.base.json"),
      compilerOptions: {
        noEmit: true,
        composite: false,
        incremental: false,
        noUnusedLocals: false,
        noUnusedParameters: false,
        rewriteRelativeImportExtensions: false,
        allowImportingTsExtensions: true,
        experimentalDecorators: true
      },
      include: ["**/*.ts"]
    })
  )
  return spawnSync("tsc", ["-p", folder], { cwd: root, env: environment(), stdio: "inherit" }).status === 0
}
const passed = [folder, ofEffect3].filter(compiles).length === 2
console.error(`${count} examples type-checked${passed ? "" : ": some do not compile"}`)
process.exitCode = passed && isInstallable ? 0 : 1
