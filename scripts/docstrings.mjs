// Part of npm run check: every exported symbol has a docstring that says when to use it, its category and its first version,
// and every overload has a docstring of its own. Editors show nothing else.
import { existsSync, readFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { parseSync } from "oxc-parser"

const root = fileURLToPath(new URL("..", import.meta.url))

const entries = [
  "packages/core/src/index.ts",
  "packages/core/src/testing/index.ts",
  "packages/core/src/testing/vitest.ts",
  "packages/http/src/index.ts",
  "packages/sql/src/index.ts",
  "packages/sql/src/pg.ts",
  "packages/platform/src/index.ts",
  "packages/platform/src/http.ts"
].map((path) => join(root, path))

const modules = new Map()

const read = (path) => {
  const known = modules.get(path)
  if (known !== undefined) return known
  const text = readFileSync(path, "utf8")
  const { comments, errors, program } = parseSync(path, text)
  if (errors.length > 0) throw new Error(`${path}: ${errors[0].message}`)
  const read = { path, text, comments, body: program.body }
  modules.set(path, read)
  return read
}

/** The docstring that ends where a node begins. */
const docOf = ({ comments, text }, node) => {
  const comment = comments.findLast(({ end }) => end <= node.start)
  if (comment === undefined || comment.type !== "Block" || !comment.value.startsWith("*")) return undefined
  return text.slice(comment.end, node.start).trim() === "" ? comment.value : undefined
}

const lineOf = ({ text }, { start }) => text.slice(0, start).split("\n").length

const namesOf = (declaration) =>
  declaration.type === "VariableDeclaration" ? declaration.declarations.map(({ id }) => id.name) : [declaration.id.name]

/** The modules that a name is imported from. */
const sourcesOf = ({ body }, name) =>
  body
    .filter((node) => node.type === "ImportDeclaration" && node.specifiers.some(({ local }) => local.name === name))
    .map(({ source }) => source.value)

/** The call signatures of a type: its overloads, if there is more than one. */
const signaturesOf = (type) =>
  type?.type === "TSTypeLiteral" ? type.members.filter((member) => member.type === "TSCallSignatureDeclaration") : []

const overloadsOf = (declaration) =>
  declaration.type === "VariableDeclaration"
    ? declaration.declarations.flatMap(({ id }) => signaturesOf(id.typeAnnotation?.typeAnnotation))
    : declaration.type === "TSInterfaceDeclaration"
      ? declaration.body.body.flatMap((member) =>
          member.type === "TSPropertySignature" ? signaturesOf(member.typeAnnotation?.typeAnnotation) : []
        )
      : []

/** The parts that a docstring lacks. */
const lacks = (doc) =>
  doc === undefined
    ? ["a docstring"]
    : [
        ...(doc.includes("**When to use**") ? [] : ["**When to use**"]),
        ...(/@category \S/.test(doc) ? [] : ["@category"]),
        ...(/@since \d+\.\d+\.\d+/.test(doc) ? [] : ["@since"])
      ]

/** Checks what a module exports. `only` restricts the check to these names, for a re-export by name. */
const checkModule = (path, only, seen, found) => {
  const module = read(path)
  const follow = (source, names) => {
    const target = join(dirname(path), source)
    if (source.startsWith(".") && existsSync(target)) checkModule(target, names, seen, found)
  }
  const report = (node, name, missing) => {
    if (missing.length > 0) {
      found.push(`${relative(root, path)}:${lineOf(module, node)} ${name}: lacks ${missing.join(", ")}`)
    }
  }
  const declared = new Set()
  for (const node of module.body) {
    if (node.type === "ExportAllDeclaration") {
      // Editors show a namespace's docstring at its re-export.
      if (node.exported !== null) report(node, node.exported.name, lacks(docOf(module, node)))
      follow(node.source.value, undefined)
    } else if (node.type === "ExportNamedDeclaration" && node.declaration === null) {
      const names = node.specifiers.map(({ local }) => local.name)
      if (node.source !== null) follow(node.source.value, names)
      // Exported under the name of an import: the docstring stands where it is declared.
      else for (const name of names) for (const source of sourcesOf(module, name)) follow(source, [name])
    } else if (node.type === "ExportNamedDeclaration" || node.type === "ExportDefaultDeclaration") {
      const { declaration } = node
      const names = node.type === "ExportDefaultDeclaration" ? ["default"] : namesOf(declaration)
      if (only !== undefined && !names.some((name) => only.includes(name))) continue
      const key = `${path} ${names.join()} ${declaration.type}`
      if (seen.has(key) && !declared.has(key)) continue
      seen.set(key, { path, names, type: declaration.type })
      declared.add(key)
      report(node, names.join(), lacks(docOf(module, node)))
      const overloads = overloadsOf(declaration)
      if (overloads.length < 2) continue
      for (const overload of overloads) {
        if (docOf(module, overload) === undefined) report(overload, `${names.join()} (overload)`, ["a docstring"])
      }
    }
  }
}

/** The public symbols, and the parts that their docstrings lack, each as a sentence. */
export const missing = () => {
  const found = []
  const seen = new Map()
  for (const entry of entries) checkModule(entry, undefined, seen, found)
  return { found, symbols: [...seen.values()] }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { found, symbols } = missing()
  for (const sentence of found) console.error(sentence)
  console.log(`${symbols.length} public symbols, ${found.length} docstrings are incomplete`)
  if (found.length > 0) process.exitCode = 1
}
