/** A server as a contender: this process serves and is measured, and another one posts. */
import { fork } from "node:child_process"
import { once } from "node:events"
import type { Prepared, Setting } from "../peers/peer.ts"

export const loaded = async (url: string, { width }: Setting, close: () => Promise<unknown>): Promise<Prepared> => {
  const client = fork(new URL("./load.ts", import.meta.url), [url, String(width)], { serialization: "advanced" })
  await once(client, "message")
  return {
    run: async (requests, latencies) => {
      client.send(requests)
      const [answer] = (await once(client, "message")) as [Float64Array | string]
      if (typeof answer === "string") throw new Error(answer)
      for (const latency of answer) latencies.record(latency)
    },
    close: async () => {
      client.disconnect()
      await once(client, "exit")
      await close()
    }
  }
}
