/**
 * A client that posts orders over keep-alive connections, in a process of its own: `load.ts URL CONNECTIONS REQUESTS`.
 * Prints how many requests a second were answered with 202, as JSON.
 */
import { Agent, request } from "node:http"

const [url = "", connections = "", requests = ""] = process.argv.slice(2)
const agent = new Agent({ keepAlive: true, maxSockets: Number(connections) })
const body = JSON.stringify({ product: "tea", quantity: 2 })
const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) }

const post = () =>
  new Promise<void>((resolve, reject) => {
    const sending = request(url, { method: "POST", agent, headers }, (response) => {
      response.resume()
      response.on("end", () =>
        response.statusCode === 202 ? resolve() : reject(new Error(`answered with ${response.statusCode}`))
      )
    })
    sending.on("error", reject)
    sending.end(body)
  })

let left = Number(requests)
const worker = async () => {
  while (left-- > 0) await post()
}
const start = process.hrtime.bigint()
await Promise.all(Array.from({ length: Number(connections) }, worker))
const seconds = Number(process.hrtime.bigint() - start) / 1e9
console.log(JSON.stringify({ perSecond: Number(requests) / seconds }))
agent.destroy()
