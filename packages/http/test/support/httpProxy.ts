/** A reverse proxy that changes its upstream, and that can buffer streams for ever, as a misconfigured one does. */
import { Effect } from "effect"
import { createServer, request, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"

export interface HttpProxy {
  readonly url: string
  /** The upstream, as `http://host:port`. `undefined`: the proxy answers 502. */
  upstream: string | undefined
  /** Whether it holds back event streams. */
  isBuffering: boolean
  /** What it answers to requests for event streams itself, as one that requires a login; `undefined`: it forwards them. */
  login: "redirect" | "page" | undefined
  /** Number of requests for event streams so far. */
  readonly streams: number
  /** Breaks off all event streams. */
  readonly endStreams: () => void
}

/** Starts a proxy, until the scope closes. */
export const make = (upstream: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      let streams = 0
      const open = new Set<ServerResponse>()
      const server = createServer((incoming, answer) => {
        const isStream = incoming.url?.endsWith("/events") === true
        if (isStream) {
          streams++
          open.add(answer)
          answer.on("close", () => open.delete(answer))
        }
        if (isStream && proxy.login === "redirect") return void answer.writeHead(302, { location: "/login" }).end()
        if (isStream && proxy.login === "page") {
          return void answer.writeHead(200, { "content-type": "text/html" }).end("<title>Sign in</title>")
        }
        if (proxy.upstream === undefined) return void answer.writeHead(502).end()
        const { headers, method, url } = incoming
        const outgoing = request(proxy.upstream + url!, { headers, method, agent: false }, (response) => {
          const { headers, statusCode = 502 } = response
          if (isStream && proxy.isBuffering) return void response.resume()
          answer.writeHead(statusCode, headers)
          response.pipe(answer)
          response.on("error", () => answer.destroy())
          response.on("close", () => answer.end())
        })
        outgoing.on("error", () => (answer.headersSent ? answer.destroy() : answer.writeHead(502).end()))
        answer.on("close", () => outgoing.destroy())
        outgoing.end()
      })
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
      const proxy: HttpProxy & { readonly close: () => void } = {
        url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
        upstream,
        isBuffering: false,
        login: undefined,
        get streams() {
          return streams
        },
        endStreams: () => {
          for (const answer of open) answer.destroy()
        },
        close: () => {
          server.closeAllConnections()
          server.close()
        }
      }
      return proxy
    }),
    (proxy) => Effect.sync(() => proxy.close())
  )
