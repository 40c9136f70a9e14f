/** What this process holds, its garbage aside. */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")

/** Collects what nobody refers to any more. */
export const collectGarbage = runInNewContext("gc") as () => void

/** Bytes of the heap and of buffers. */
export const bytesHeld = (): number => {
  // What a finalizer lets go is collected by the next one.
  for (let i = 0; i < 3; i++) collectGarbage()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}
