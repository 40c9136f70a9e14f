/** The output of channels in a test that acts as the connection: it takes bytes when it chooses. */
import type { Duplex } from "node:stream"
import { PassThrough } from "node:stream"
import { ChannelOutput, type OutputEvents } from "../../src/internal/driver/channelOutput.ts"
import { ConnectionOutput } from "../../src/internal/driver/connectionOutput.ts"

/** Takes nothing automatically. */
export class ManualOutput extends ConnectionOutput {
  /** How often output was announced. */
  announced = 0

  constructor(socket: Duplex = new PassThrough()) {
    super(socket)
  }

  override announce(): void {
    this.announced++
  }

  override flush(): void {}
}

const ignored: OutputEvents = { outputDrained: () => {}, outputTaken: () => {} }

/** The output of one channel. */
export const outputOf = (
  connection: ConnectionOutput = new ManualOutput(),
  size = 2 ** 20,
  events = ignored
): ChannelOutput => new ChannelOutput(size, connection, events)

/** All that can be taken now, piece by piece. */
export const takeAll = (output: ChannelOutput): ReadonlyArray<Buffer> => {
  const pieces: Array<Buffer> = []
  for (let piece = output.take(); piece !== undefined; piece = output.take()) pieces.push(piece)
  return pieces
}
