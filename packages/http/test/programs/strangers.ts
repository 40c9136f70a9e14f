/**
 * Ten hostile clients of the gateway at `PORT`, in their own process, until it is stopped. They consume from the queue
 * `BAIT`, do not read, and send invalid messages. `ONLY` (names separated by commas) selects some of them. The program
 * prints `listening on http://127.0.0.1:PORT` when all have begun, as every program of the tests does, and the number
 * of attacks per client: `done {"giants":7}`.
 */
import { connect, type Socket } from "node:net"
import { frame } from "../support/rawWebSocket.ts"
import { upgradeRequest } from "../support/server.ts"

const port = Number(process.env["PORT"])
const path = `/amqp/consume/${process.env["BAIT"]}`

const done: Record<string, number> = {}

const pause = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

/** Sends a request on a new connection, runs `then` on its answer, and waits until the connection is gone. */
const visit = (request: string, millis: number, then: (socket: Socket, answer: string) => void = () => {}) =>
  new Promise<void>((resolve) => {
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true }, () => socket.write(request))
    const timer = setTimeout(() => socket.destroy(), millis)
    socket.once("data", (data) => {
      socket.pause()
      then(socket, data.toString("latin1"))
    })
    socket.on("error", () => {})
    socket.once("close", () => {
      clearTimeout(timer)
      resolve()
    })
  })

/** Writes the same bytes repeatedly, as fast as the socket accepts them. */
const flood = (socket: Socket, bytes: Buffer) => {
  const more = () => {
    while (!socket.destroyed && socket.write(bytes)) {}
  }
  socket.on("drain", more)
  more()
}

const junk = Buffer.concat(Array.from({ length: 2000 }, () => frame("junk")))
const unknown = Buffer.concat(Array.from({ length: 1000 }, () => frame('{"ack":"of no stream"}')))
const pings = Buffer.concat(Array.from({ length: 2000 }, () => frame("x".repeat(100), { first: 0x89 })))
const zeros = Buffer.alloc(65_536)

/** Opens a stream, and resumes it with many clients at once. */
const resume = async () => {
  let id = ""
  await visit(`GET ${path}?ack=delivery HTTP/1.1\r\nHost: x\r\n\r\n`, 300, (socket, answer) => {
    const look = (text: string) => {
      id = /id: (\S+)\n/.exec(text)?.[1] ?? id
    }
    look(answer)
    socket.on("data", (data) => look(data.toString("latin1")))
    socket.resume()
  })
  const again = upgradeRequest(`${path}?ack=delivery&lastEventId=${id}`)
  await Promise.all(Array.from({ length: 50 }, () => visit(again, 500)))
}

const clients: ReadonlyArray<readonly [name: string, once: () => Promise<void>]> = [
  ["unread on delivery", () => visit(upgradeRequest(`${path}?ack=delivery`), 5000)],
  ["unread on delivery", () => visit(upgradeRequest(`${path}?ack=delivery`), 5000)],
  ["unread events", () => visit(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`, 5000)],
  [
    "giants",
    () =>
      visit(upgradeRequest(path), 5000, (socket) => {
        socket.write(frame("", { announced: 99 * 1024 * 1024 }))
        flood(socket, zeros)
      })
  ],
  [
    "giants in fragments",
    () => visit(upgradeRequest(path), 5000, (socket) => flood(socket, frame("x".repeat(65_000), { first: 0x01 })))
  ],
  ["junk", () => visit(upgradeRequest(path), 5000, (socket) => flood(socket, junk))],
  ["unread answers", () => visit(upgradeRequest(path), 5000, (socket) => flood(socket, unknown))],
  ["unread pongs", () => visit(upgradeRequest(path), 5000, (socket) => flood(socket, pings))],
  ["comes back", resume],
  [
    "upgrades by POST",
    () => visit(upgradeRequest(`/amqp/publish/amq.default/${process.env["BAIT"]}`).replace("GET", "POST"), 5000)
  ]
]

const only = process.env["ONLY"]?.split(",")

for (const [name, once] of clients) {
  if (only !== undefined && !only.includes(name)) continue
  done[name] ??= 0
  void (async () => {
    for (;;) {
      await once()
      done[name] = done[name]! + 1
      await pause(10)
    }
  })()
}

console.log(`listening on http://127.0.0.1:${port}`)
setInterval(() => console.log(`done ${JSON.stringify(done)}`), 200)
process.once("SIGTERM", () => process.exit(0))
