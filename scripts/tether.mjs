// Preloaded into the program that `run.mjs` starts: ends the program with SIGTERM, in its own orderly way, when
// `run.mjs` is gone.
import { Socket } from "node:net"

const parent = new Socket({ fd: 3 })
parent.on("error", () => {})
parent.on("close", () => process.kill(process.pid, "SIGTERM"))
parent.resume()
parent.unref()
