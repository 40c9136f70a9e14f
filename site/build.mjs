// Builds the site and checks it: the pages of docs, and the API reference from the docstrings. With --browser it also
// visits every page in a browser. With --serve it also serves the site, to this machine only.
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import { join, relative, sep } from "node:path"
import { performance } from "node:perf_hooks"
import { root } from "../scripts/dependencies.mjs"
import { missing } from "../scripts/docstrings.mjs"
import { mistakesOf } from "./check.mjs"
import { writePages } from "./pages.mjs"
import { writeSite } from "./reference.mjs"
import { answer } from "./serve.mjs"

const site = join(root, "site")
const folder = join(site, "dist")

const build = async () => {
  const begin = performance.now()
  const pages = writePages(root, join(site, ".pages"))
  const { failed, symbols } = await writeSite({ folder, pages, root })
  const checked = mistakesOf(folder, symbols)

  // These are the symbols whose docstrings npm run check checks. TypeDoc must not leave out any of them.
  const types = { TSInterfaceDeclaration: "type", TSTypeAliasDeclaration: "type", TSModuleDeclaration: "namespace" }
  const written = new Set(symbols.flatMap(({ name, paths, space }) => paths.map((path) => `${path} ${name} ${space}`)))
  // A package that is not published yet has no reference.
  const isPublished = (path) => {
    const [, name] = relative(root, path).split(sep)
    return JSON.parse(readFileSync(join(root, "packages", name, "package.json"), "utf8")).private !== true
  }
  const expected = missing()
    .symbols.filter(({ path }) => isPublished(path))
    .flatMap(({ names, path, type }) => names.map((name) => ({ name, path, space: types[type] ?? "value" })))
  const absent = expected
    .filter(({ name, path, space }) => !written.has(`${path} ${name} ${space}`))
    .map(({ name, path }) => `${relative(root, path)}: ${name} is exported, and is not in the reference`)

  const mistakes = [...pages.mistakes, ...absent, ...checked.found]
  for (const mistake of mistakes) console.error(mistake)
  const seconds = ((performance.now() - begin) / 1000).toFixed(1)
  console.error(
    `${relative(root, folder)}: ${checked.pages} pages, ${expected.length - absent.length} of ${expected.length} exported ` +
      `symbols, ${checked.links} links, ${mistakes.length} mistakes, in ${seconds} s`
  )
  if (failed || mistakes.length > 0) process.exitCode = 1
}

const serve = () => {
  const server = createServer(answer(folder))
  server.listen(Number(process.env.PORT ?? 4000), "127.0.0.1", () =>
    console.error(`The site: http://127.0.0.1:${server.address().port}/  (Ctrl-C ends)`)
  )
}

const look = async () => {
  const { lookAt } = await import("./browser.mjs")
  const { found = [], missing, pages, plots, seconds } = await lookAt(folder)
  if (missing !== undefined) return console.error(missing)
  for (const problem of found) console.error(problem)
  console.error(`In a browser: ${pages} pages, ${plots} plots, ${found.length} mistakes, in ${seconds} s`)
  if (found.length > 0) process.exitCode = 1
}

await build()
if (process.argv.includes("--browser")) await look()
if (process.argv.includes("--serve")) serve()
