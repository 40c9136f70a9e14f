// Builds the site and checks it: the pages of docs, and the API reference from the docstrings. With --serve it also
// serves the site, to this machine only.
import { createReadStream, existsSync, readFileSync, statSync } from "node:fs"
import { createServer } from "node:http"
import { extname, join, relative, sep } from "node:path"
import { performance } from "node:perf_hooks"
import { root } from "../scripts/dependencies.mjs"
import { missing } from "../scripts/docstrings.mjs"
import { mistakesOf } from "./check.mjs"
import { writePages } from "./pages.mjs"
import { writeSite } from "./reference.mjs"

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

const contentTypes = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png"
}

const serve = () => {
  const server = createServer(({ url }, response) => {
    const { pathname } = new URL(url, "http://localhost")
    let path
    try {
      path = join(folder, decodeURIComponent(pathname))
    } catch {
      path = folder
    }
    if (path.endsWith(sep)) path = join(path, "index.html")
    if (!path.startsWith(folder + sep) || !existsSync(path) || !statSync(path).isFile()) {
      response.writeHead(404, { "content-type": "text/plain" }).end("Not found")
      return
    }
    response.writeHead(200, { "content-type": contentTypes[extname(path)] ?? "application/octet-stream" })
    createReadStream(path).pipe(response)
  })
  server.listen(Number(process.env.PORT ?? 4000), "127.0.0.1", () =>
    console.error(`The site: http://127.0.0.1:${server.address().port}/  (Ctrl-C ends)`)
  )
}

await build()
if (process.argv.includes("--serve")) serve()
