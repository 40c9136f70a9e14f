/**
 * The primitive types of AMQP 0-9-1 on the wire: octets, shorts, longs, strings.
 *
 * A `WireError` says that bytes are malformed: too short, or a value that its type cannot hold.
 */

export class WireError extends Error {
  override readonly name = "WireError"
}

const octetsLeft = (bytes: Buffer, offset: number, needed: number, what: string): void => {
  if (offset + needed > bytes.length) {
    throw new WireError(`${what} needs ${needed} octets, ${bytes.length - offset} are left`)
  }
}

export class WireReader {
  private offset = 0
  private readonly bytes: Buffer

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  get done(): boolean {
    return this.offset >= this.bytes.length
  }

  private advance(length: number, what: string): number {
    octetsLeft(this.bytes, this.offset, length, what)
    const at = this.offset
    this.offset += length
    return at
  }

  octet = (): number => this.bytes.readUInt8(this.advance(1, "octet"))
  short = (): number => this.bytes.readUInt16BE(this.advance(2, "short"))
  long = (): number => this.bytes.readUInt32BE(this.advance(4, "long"))
  longlong = (): bigint => this.bytes.readBigUInt64BE(this.advance(8, "longlong"))
  signedOctet = (): number => this.bytes.readInt8(this.advance(1, "signed octet"))
  signedShort = (): number => this.bytes.readInt16BE(this.advance(2, "signed short"))
  signedLong = (): number => this.bytes.readInt32BE(this.advance(4, "signed long"))
  signedLonglong = (): bigint => this.bytes.readBigInt64BE(this.advance(8, "signed longlong"))
  float = (): number => this.bytes.readFloatBE(this.advance(4, "float"))
  double = (): number => this.bytes.readDoubleBE(this.advance(8, "double"))

  octets(length: number): Buffer {
    const at = this.advance(length, "octets")
    return this.bytes.subarray(at, at + length)
  }

  rest(): Buffer {
    return this.octets(this.bytes.length - this.offset)
  }

  shortstr = (): string => this.octets(this.octet()).toString("utf8")
  longstr = (): string => this.octets(this.long()).toString("utf8")
}

export class WireWriter {
  private readonly parts: Array<Buffer> = []

  private fixed(length: number, write: (part: Buffer) => void): void {
    const part = Buffer.alloc(length)
    write(part)
    this.parts.push(part)
  }

  octet = (value: number): void => this.fixed(1, (part) => part.writeUInt8(value))
  short = (value: number): void => this.fixed(2, (part) => part.writeUInt16BE(value))
  long = (value: number): void => this.fixed(4, (part) => part.writeUInt32BE(value))
  longlong = (value: bigint): void => this.fixed(8, (part) => part.writeBigUInt64BE(value))
  signedOctet = (value: number): void => this.fixed(1, (part) => part.writeInt8(value))
  signedShort = (value: number): void => this.fixed(2, (part) => part.writeInt16BE(value))
  signedLong = (value: number): void => this.fixed(4, (part) => part.writeInt32BE(value))
  signedLonglong = (value: bigint): void => this.fixed(8, (part) => part.writeBigInt64BE(value))
  float = (value: number): void => this.fixed(4, (part) => part.writeFloatBE(value))
  double = (value: number): void => this.fixed(8, (part) => part.writeDoubleBE(value))

  octets(value: Uint8Array): void {
    this.parts.push(Buffer.from(value.buffer, value.byteOffset, value.byteLength))
  }

  shortstr(value: string): void {
    const bytes = Buffer.from(value, "utf8")
    if (bytes.length > 255) throw new WireError(`shortstr of ${bytes.length} octets, at most 255 fit`)
    this.octet(bytes.length)
    this.octets(bytes)
  }

  longstr(value: string | Uint8Array): void {
    const bytes = typeof value === "string" ? Buffer.from(value, "utf8") : value
    this.long(bytes.length)
    this.octets(bytes)
  }

  finish(): Buffer {
    return Buffer.concat(this.parts)
  }
}
