/**
 * A client that posts orders over keep-alive connections, in a separate process: `load.ts URL CONNECTIONS`. It receives
 * a number of requests, and answers with the milliseconds that each took. It writes and reads sockets directly: a
 * client that needs more CPU than the server would be all that is measured.
 */
import { once } from "node:events"
import { connect, type Socket } from "node:net"

const [url = "", connections = ""] = process.argv.slice(2)
const { hostname, host, pathname, port } = new URL(url)
const body = JSON.stringify({ product: "tea", quantity: 2 })
const request = Buffer.from(
  `POST ${pathname} HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
)

class Connection {
  readonly #socket: Socket
  #received = ""
  #answered: () => void = () => undefined
  #failed: (error: Error) => void = () => undefined

  constructor(socket: Socket) {
    this.#socket = socket
    socket.setNoDelay(true).setEncoding("latin1")
    socket.on("data", (chunk) => {
      this.#received += String(chunk)
      this.#look()
    })
    socket.on("error", (error) => this.#failed(error))
    socket.on("close", () => this.#failed(new Error("the server has closed a connection")))
  }

  #look() {
    const head = this.#received.indexOf("\r\n\r\n")
    if (head === -1) return
    const length = /^content-length: (\d+)\r$/im.exec(this.#received.slice(0, head + 2))
    if (!this.#received.startsWith("HTTP/1.1 202") || length === null) {
      return this.#failed(new Error(`expected another answer, got ${this.#received}`))
    }
    const end = head + 4 + Number(length[1])
    if (this.#received.length < end) return
    this.#received = this.#received.slice(end)
    this.#answered()
  }

  post() {
    return new Promise<void>((resolve, reject) => {
      this.#answered = resolve
      this.#failed = reject
      this.#socket.write(request)
    })
  }
}

const open = async () => {
  const socket = connect(Number(port), hostname)
  await once(socket, "connect")
  return new Connection(socket)
}

const all = await Promise.all(Array.from({ length: Number(connections) }, open))

process.on("message", (requests: number) => {
  const latencies = new Float64Array(requests)
  let next = 0
  const worker = async (connection: Connection) => {
    while (next < requests) {
      const index = next++
      const start = performance.now()
      await connection.post()
      latencies[index] = performance.now() - start
    }
  }
  Promise.all(all.map(worker)).then(
    () => process.send!(latencies),
    (error: unknown) => process.send!(String(error))
  )
})
process.on("disconnect", () => process.exit())
process.send!("ready")
