/** The memory of this process, without its garbage. */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")

/** Collects everything that is not referenced any more. */
export const collectGarbage = runInNewContext("gc") as () => void

/** Bytes of the heap and of buffers. */
export const bytesHeld = (): number => {
  // What a finalizer releases is collected by the next one.
  for (let i = 0; i < 3; i++) collectGarbage()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}
