// What the built site promises: every link of every page arrives, nothing is loaded from another host, and the search
// finds what has a page.
import { existsSync, globSync, readFileSync, statSync } from "node:fs"
import { join, posix } from "node:path"
import { inflateSync } from "node:zlib"

const entities = { amp: "&", quot: '"', "#39": "'", lt: "<", gt: ">" }
const decode = (text) => text.replaceAll(/&(amp|quot|#39|lt|gt);/g, (_, name) => entities[name])

/** TypeDoc keeps its search index and its navigation as compressed JSON in a script. */
const dataOf = (path) => JSON.parse(inflateSync(Buffer.from(/"([^"]+)"/.exec(readFileSync(path, "utf8"))[1], "base64")))

/** What a page loads: scripts, style sheets, images and the like; and where it leads. */
const readPage = (html) => {
  const loads = []
  const leads = []
  const ids = new Set()
  for (const [, name, attributes] of html.matchAll(/<([a-z][a-z\d]*)((?:\s+[\w:-]+(?:="[^"]*")?)+)\s*\/?>/gi)) {
    for (const [, key, value] of attributes.matchAll(/([\w:-]+)="([^"]*)"/g)) {
      if (key === "id" || (key === "name" && name === "a")) ids.add(decode(value))
      else if (key === "src" || (key === "href" && name === "link")) loads.push(decode(value))
      else if (key === "srcset") for (const part of value.split(",")) loads.push(decode(part.trim().split(" ")[0]))
      else if (key === "href" && name === "a") leads.push(decode(value))
    }
  }
  return { ids, leads, loads }
}

/** What is wrong with a site, each as a sentence. */
export const mistakesOf = (folder, symbols) => {
  const found = []
  const paths = globSync("**/*.html", { cwd: folder }).map((path) => path.replaceAll("\\", "/"))
  const pages = new Map(paths.map((path) => [path, readPage(readFileSync(join(folder, path), "utf8"))]))
  for (const start of ["index.html", "documents/changelog.html", "modules/core.AmqpChannel.html"]) {
    if (!pages.has(start)) found.push(`${start} is missing`)
  }

  let links = 0
  for (const [path, { leads, loads }] of pages) {
    const follow = (link, loaded) => {
      if (link === "" || link === "#" || link.startsWith("data:")) return
      if (/^(?:[a-z][a-z\d+.-]*:|\/\/)/i.test(link)) {
        if (loaded) found.push(`${path} loads ${link}: expected nothing from another host`)
        return
      }
      links++
      const [address, anchor] = link.split("#").map(decodeURIComponent)
      const target = address === "" ? path : posix.normalize(posix.join(posix.dirname(path), address))
      const page = pages.get(target)
      if (page === undefined && !(existsSync(join(folder, target)) && statSync(join(folder, target)).isFile())) {
        found.push(`${path} links to ${link}: there is no ${target}`)
      } else if (page !== undefined && anchor !== undefined && anchor !== "" && !page.ids.has(anchor)) {
        found.push(`${path} links to ${link}: there is no such anchor in ${target}`)
      }
    }
    for (const link of loads) follow(link, true)
    for (const link of leads) follow(link, false)
  }
  for (const path of globSync("assets/*.css", { cwd: folder })) {
    const style = readFileSync(join(folder, path), "utf8")
    for (const [, address] of style.matchAll(/(?:url\(|@import )["']?((?:https?:)?\/\/[^"')]+)/g)) {
      found.push(`${path} loads ${address}: expected nothing from another host`)
    }
  }

  const { rows } = dataOf(join(folder, "assets/search.js"))
  const searched = new Set(rows.map(({ url }) => url))
  for (const { url } of rows) {
    if (!pages.has(url.split("#")[0])) found.push(`The search leads to ${url}: there is no such page`)
  }
  for (const { name, page } of symbols) {
    if (page === undefined) found.push(`${name} has no page`)
    else if (!searched.has(page)) found.push(`${name} (${page}) is not in the search index`)
  }
  return { found, links, pages: pages.size, rows: rows.length }
}
