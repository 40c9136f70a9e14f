// The Markdown of the repository as pages of the site: README, CHANGELOG, docs and what they link to.
// Every link is checked as the repository's host follows it; links to files that are no pages lead to that host.
// As a program, which npm run check runs, it reports the broken links only.
import { cpSync, existsSync, globSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { dirname, extname, join, posix } from "node:path"
import { fileURLToPath } from "node:url"

/** Where the repository's files are read. */
export const repository = "https://github.com/effect-amqp/effect-amqp"

/** The pages of the site, in their order. A new page of docs comes after these. */
const order = [
  "docs/lifecycle.md",
  "docs/failure-model.md",
  "docs/when-a-message-fails.md",
  "docs/idempotency.md",
  "docs/outbox.md",
  "docs/configuration.md",
  "docs/cli.md",
  "docs/testing.md",
  "docs/deployment.md",
  "docs/observability.md",
  "docs/dashboard.md",
  "docs/pika.md",
  "docs/effect-3.md",
  "docs/performance.md",
  "docs/architecture.md",
  "docs/decisions.md"
]
const last = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
const images = new Set([".png", ".svg", ".jpg", ".gif", ".webp"])

/** The text with its code blanked out, so that what looks like a link or a heading in code is none. */
const withoutCode = (text) =>
  text
    .replaceAll(/^ *(```+|~~~+)[^\n]*\n[^]*?^ *\1[^\n]*$/gm, (code) => code.replaceAll(/[^\n]/g, " "))
    .replaceAll(/(`+)(?!`)[^]*?[^`]\1(?!`)/g, (code) => code.replaceAll(/[^\n]/g, " "))

const blocks = /^(?<open> *(?:```+|~~~+))(?<language>[\w-]*)(?<rest>[^\n]*\n[^]*?^ *(?:```+|~~~+) *$)/gm

const link = /(?<before>\]\(|^\[[^\]]+\]: +|\b(?:src|href|srcset)=")(?<target>[^)\s"]+)/gm

/** The anchors of a page's headings, as the repository's host makes them. */
const anchorsOf = (text) => {
  const anchors = new Set()
  const blank = withoutCode(text)
  for (const { 0: line, index } of blank.matchAll(/^#{1,6} .*$/gm)) {
    const heading = text.slice(index, index + line.length).replace(/^#+ /, "")
    const slug = heading
      .replaceAll(/!?\[([^\]]*)\]\([^)]*\)/g, "$1")
      .trim()
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\p{M} _-]/gu, "")
      .replaceAll(" ", "-")
    let anchor = slug
    for (let nth = 1; anchors.has(anchor); nth++) anchor = `${slug}-${nth}`
    anchors.add(anchor)
  }
  for (const [, id] of blank.matchAll(/<[^>]*\b(?:id|name)="([^"]+)"/g)) anchors.add(id)
  return anchors
}

/**
 * Writes the pages into a folder for TypeDoc, which prints the start page's title itself.
 * Gives the start page, the other pages and their names by title, the languages of their code, and what is wrong with
 * their links.
 */
export const writePages = (root, folder) => {
  const found = globSync("docs/**/*.md", { cwd: root }).map((path) => path.replaceAll("\\", "/"))
  const documents = [
    ...order.filter((path) => found.includes(path)),
    ...found.filter((path) => !order.includes(path)).sort(),
    ...last.filter((path) => existsSync(join(root, path)))
  ]
  const pages = new Set(["README.md", ...documents])
  const others = globSync("packages/*/README.md", { cwd: root }).map((path) => path.replaceAll("\\", "/"))
  const mistakes = []
  const languages = new Set()
  const titles = new Map()
  const texts = new Map()
  const textOf = (path) => {
    if (!texts.has(path)) texts.set(path, readFileSync(join(root, path), "utf8"))
    return texts.get(path)
  }

  rmSync(folder, { recursive: true, force: true })
  for (const path of [...pages, ...others]) {
    const text = textOf(path)
    const blank = withoutCode(text)
    let written = ""
    let end = 0
    for (const { groups, index } of blank.matchAll(link)) {
      const { before, target } = groups
      if (/^[a-z][a-z\d+.-]*:/i.test(target)) continue
      const start = index + before.length
      const report = (problem) =>
        mistakes.push(`${path}:${text.slice(0, start).split("\n").length}: the link to ${target}: ${problem}`)
      const [address, anchor] = target.split("#")
      const file = address === "" ? path : posix.normalize(posix.join(posix.dirname(path), decodeURIComponent(address)))
      if (file.startsWith("..")) {
        report("it leads out of the repository")
        continue
      }
      if (!existsSync(join(root, file))) {
        report(`there is no ${file}`)
        continue
      }
      if (anchor !== undefined && file.endsWith(".md") && !anchorsOf(textOf(file)).has(decodeURIComponent(anchor))) {
        report(`${file} has no heading with this anchor`)
        continue
      }
      if (pages.has(file)) continue
      if (images.has(extname(file))) {
        mkdirSync(join(folder, dirname(file)), { recursive: true })
        cpSync(join(root, file), join(folder, file))
        continue
      }
      const view = statSync(join(root, file)).isDirectory() ? "tree" : "blob"
      written +=
        text.slice(end, start) + `${repository}/${view}/main/${file}${anchor === undefined ? "" : `#${anchor}`}`
      end = start + target.length
    }
    written += text.slice(end)
    if (!pages.has(path)) continue
    const heading = /^# (.*)$/m.exec(written)
    const title = heading === null ? path : heading[1].replaceAll("`", "")
    titles.set(title, posix.basename(path, ".md").toLowerCase())
    // TypeDoc takes code of no language for TypeScript.
    const content = written.replaceAll(blocks, (_, open, language, rest) => {
      if (language !== "") languages.add(language)
      return open + (language === "" ? "txt" : language) + rest
    })
    mkdirSync(join(folder, dirname(path)), { recursive: true })
    writeFileSync(
      join(folder, path),
      path === "README.md"
        ? content.replace(heading?.[0] ?? "", "")
        : `---\ntitle: ${JSON.stringify(title)}\n---\n${content}`
    )
  }
  return {
    start: join(folder, "README.md"),
    documents: documents.map((path) => join(folder, path)),
    titles,
    languages: [...languages],
    mistakes
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = fileURLToPath(new URL("..", import.meta.url))
  const { mistakes } = writePages(root, join(root, "site/.pages"))
  for (const mistake of mistakes) console.error(mistake)
  if (mistakes.length > 0) process.exitCode = 1
}
