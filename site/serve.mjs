// Answers requests for the files of the built site.
import { createReadStream, existsSync, statSync } from "node:fs"
import { extname, join, sep } from "node:path"

const contentTypes = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png"
}

/** The listener of an HTTP server for a folder. */
export const answer =
  (folder) =>
  ({ url }, response) => {
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
  }
