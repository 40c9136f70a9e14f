/**
 * Records what other code than amqplib does to amqplib, in one process: its prototypes and modules are frozen, and each
 * access to a member of its objects that it does not declare is recorded, with its place.
 *
 * amqplib writes to its own objects all the time, by methods that others call. So the stack determines the writer: it
 * is the file nearest to the write. Node's `events` counts as amqplib, because to listen to an emitter is a declared
 * use of it.
 */
import type { Channel, ChannelModel, ConfirmChannel, Connection } from "amqplib"
import { createRequire } from "node:module"
import { dirname, join, sep } from "node:path"
import { fileURLToPath } from "node:url"

/**
 * The recorded accesses, each once: the member, and the file that accessed it. `Channel.ch by packages/core/src/...`.
 */
export interface Recording {
  /** Reads of members that are not declared. */
  readonly reads: ReadonlySet<string>
  /** Writes of any member. */
  readonly writes: ReadonlySet<string>
}

type Names<A> = Readonly<Record<Exclude<keyof A, symbol>, true>>

const emitter = {
  addListener: true,
  emit: true,
  eventNames: true,
  getMaxListeners: true,
  listenerCount: true,
  listeners: true,
  off: true,
  on: true,
  once: true,
  prependListener: true,
  prependOnceListener: true,
  rawListeners: true,
  removeAllListeners: true,
  removeListener: true,
  setMaxListeners: true
} as const

// All members that amqplib declares: a member that it adds or removes does not compile here.
const ofConnection: Names<Connection> = { serverProperties: true }

const ofModel: Names<ChannelModel> = {
  ...emitter,
  close: true,
  connection: true,
  createChannel: true,
  createConfirmChannel: true,
  updateSecret: true
}

const ofChannel: Names<Channel> = {
  ...emitter,
  ack: true,
  ackAll: true,
  assertExchange: true,
  assertQueue: true,
  bindExchange: true,
  bindQueue: true,
  cancel: true,
  checkExchange: true,
  checkQueue: true,
  close: true,
  connection: true,
  consume: true,
  deleteExchange: true,
  deleteQueue: true,
  get: true,
  nack: true,
  nackAll: true,
  prefetch: true,
  publish: true,
  purgeQueue: true,
  recover: true,
  reject: true,
  sendToQueue: true,
  unbindExchange: true,
  unbindQueue: true
}

const ofConfirmChannel: Names<ConfirmChannel> = { ...ofChannel, waitForConfirms: true }

const require = createRequire(import.meta.url)
const entry = require.resolve("amqplib")
const folder = dirname(entry) + sep
const own = fileURLToPath(import.meta.url)
const root = join(dirname(own), "..", "..", "..", "..") + sep

/** The file that is nearest on the stack and not this one; `undefined` for the engine itself. */
const caller = (below: Trap): string | undefined => {
  const holder: { stack?: string } = {}
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 12
  Error.captureStackTrace(holder, below)
  Error.stackTraceLimit = stackTraceLimit
  for (const line of holder.stack?.split("\n").slice(1) ?? []) {
    const place = /\(?(?:file:\/\/)?((?:node:|[A-Za-z]:\\|\/)[^()?]*)(?:\?[^()]*)?:\d+:\d+\)?$/.exec(line)?.[1]
    if (place !== undefined && place !== own) return place
  }
  return undefined
}

const isAmqplib = (place: string): boolean => place.startsWith(folder) || place === "node:events"

const by = (place: string | undefined): string =>
  place === undefined ? "the engine" : place.startsWith(root) ? place.slice(root.length) : place

type Constructor = abstract new (...args: ReadonlyArray<never>) => object
type Trap = (...args: Array<never>) => unknown

const declared: Readonly<Record<string, object>> = {
  Connection: ofConnection,
  ChannelModel: ofModel,
  Channel: ofChannel,
  ConfirmChannel: ofConfirmChannel
}

/** The amqplib class of an object, if any. */
const nameOf = (of: object): string => {
  let prototype: object | null = Object.getPrototypeOf(of)
  while (prototype !== null && !Object.hasOwn(declared, prototype.constructor.name)) {
    prototype = Object.getPrototypeOf(prototype)
  }
  return prototype?.constructor.name ?? "?"
}

/** Starts to record. Must be called before any other module loads amqplib. */
export const record = (): Recording => {
  if (Object.keys(require.cache).some((path) => path.startsWith(folder))) {
    throw new Error("amqplib is already loaded: earlier accesses cannot be recorded")
  }
  const reads = new Set<string>()
  const writes = new Set<string>()

  const wrote = (target: object, key: PropertyKey, trap: Trap): void => {
    const place = caller(trap)
    if (place === undefined || !isAmqplib(place)) writes.add(`${nameOf(target)}.${String(key)} by ${by(place)}`)
  }
  const looked = (target: object, key: PropertyKey, trap: Trap): void => {
    const name = nameOf(target)
    if (Object.hasOwn(declared[name] ?? {}, key)) return
    const place = caller(trap)
    if (place !== undefined && isAmqplib(place)) return
    // The engine looks for `then` where a promise is resolved, possibly with only Node's own code on the stack.
    if (key === "then" && (place === undefined || place.startsWith("node:internal/"))) return
    reads.add(`${name}.${String(key)} by ${by(place)}`)
  }
  const handler = {
    get(target, key) {
      looked(target, key, handler.get)
      return Reflect.get(target, key)
    },
    has(target, key) {
      looked(target, key, handler.has)
      return Reflect.has(target, key)
    },
    getOwnPropertyDescriptor(target, key) {
      looked(target, key, handler.getOwnPropertyDescriptor)
      return Reflect.getOwnPropertyDescriptor(target, key)
    },
    ownKeys(target) {
      looked(target, "(keys)", handler.ownKeys)
      return Reflect.ownKeys(target)
    },
    set(target, key, value) {
      wrote(target, key, handler.set)
      return Reflect.set(target, key, value)
    },
    defineProperty(target, key, descriptor) {
      wrote(target, key, handler.defineProperty)
      return Reflect.defineProperty(target, key, descriptor)
    },
    deleteProperty(target, key) {
      wrote(target, key, handler.deleteProperty)
      return Reflect.deleteProperty(target, key)
    },
    setPrototypeOf(target, prototype) {
      wrote(target, "(prototype)", handler.setPrototypeOf)
      return Reflect.setPrototypeOf(target, prototype)
    }
  } satisfies ProxyHandler<object>

  const watched = (of: Constructor): Constructor => {
    const watching = class extends of {
      constructor(...args: ReadonlyArray<never>) {
        super(...args)
        // oxlint-disable-next-line no-constructor-return -- What extends this class has the proxy as `this`.
        return new Proxy(this, handler)
      }
    }
    Object.defineProperty(watching, "name", { value: of.name })
    return watching
  }

  const load = createRequire(entry) as (path: string) => Record<string, unknown>
  const watch = (path: string, name: string) => {
    const module = load(path)
    module[name] = watched(module[name] as Constructor)
  }
  // In this order: each is used by the next one as it loads. Channels are classes that only their own module can
  // replace, so the class that they extend is watched.
  watch("./lib/connection.js", "Connection")
  watch("./lib/channel.js", "BaseChannel")
  watch("./lib/channel_model.js", "ChannelModel")
  load("amqplib")
  for (const [path, module] of Object.entries(require.cache)) {
    if (path.startsWith(folder) && module !== undefined) freezeModule(module.exports)
  }
  return { reads, writes }
}

const freezeModule = (exports: unknown): void => {
  if (typeof exports === "function") freezeClass(exports)
  if (typeof exports !== "object" || exports === null) return
  for (const value of Object.values(exports)) if (typeof value === "function") freezeClass(value)
  Object.freeze(exports)
}

/** Freezes a class and the classes that it extends. */
const freezeClass = (of: object): void => {
  let prototype: object | null | undefined = (of as { prototype?: object }).prototype
  while (prototype !== null && prototype !== undefined && isOfAmqplib(prototype)) {
    freezePrototype(prototype)
    prototype = Object.getPrototypeOf(prototype)
  }
  Object.freeze(of)
}

/** Excludes Node's emitters and streams, and what every function and object has. */
const isOfAmqplib = (prototype: object): boolean => {
  const text = Function.prototype.toString.call(prototype.constructor)
  return prototype !== Object.prototype && text.startsWith("class") && !text.includes("[native code]")
}

/**
 * amqplib's objects replace methods of their own (`this.accept = ...`), which a frozen data property of their prototype
 * would forbid. An accessor lets an object have its own method, and throws for the prototype.
 */
const freezePrototype = (prototype: object): void => {
  if (Object.isFrozen(prototype)) return
  for (const [key, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
    if (!("value" in descriptor) || key === "constructor") continue
    const { value } = descriptor
    Object.defineProperty(prototype, key, {
      get: () => value,
      set(this: object, own: unknown) {
        if (this === prototype) throw new TypeError(`amqplib's prototypes are frozen: ${key} was written`)
        Object.defineProperty(this, key, { value: own, writable: true, enumerable: true, configurable: true })
      }
    })
  }
  Object.freeze(prototype)
}
