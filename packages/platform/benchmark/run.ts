/** What the contenders on Effect 3 share. It is what `benchmarks/src/peers/effectAmqp.ts` has on Effect 4. */
import { Deferred, Effect, Exit, type Layer, ManagedRuntime, Scope } from "effect"
import type { Latencies, Prepare, Setting } from "../../../benchmarks/src/peers/peer.ts"

type Program<R> = (messages: number, latencies: Latencies) => Effect.Effect<unknown, unknown, R | Scope.Scope>

/** What is opened stays open until the contender closes. What a run opens stays open until the run is settled. */
export const by =
  <R>(
    layer: (setting: Setting) => Layer.Layer<R, unknown>,
    make: (setting: Setting) => Effect.Effect<Program<R>, unknown, R | Scope.Scope>
  ): Prepare =>
  async (setting) => {
    const runtime = ManagedRuntime.make(layer(setting))
    const scope = Effect.runSync(Scope.make())
    const run = await runtime.runPromise(Scope.extend(make(setting), scope))
    return {
      run: async (messages, latencies) => {
        const scope = Effect.runSync(Scope.make())
        await runtime.runPromise(Scope.extend(run(messages, latencies), scope))
        return () => Effect.runPromise(Scope.close(scope, Exit.void))
      },
      close: async () => {
        await runtime.runPromise(Scope.close(scope, Exit.void))
        await runtime.dispose()
      }
    }
  }

/** Runs `one` `messages` times, by `width` fibers. */
export const share = <R>(
  messages: number,
  width: number,
  latencies: Latencies,
  one: () => Effect.Effect<unknown, unknown, R>
) => {
  let left = messages
  const worker = Effect.gen(function* () {
    while (left-- > 0) {
      const start = performance.now()
      yield* one()
      latencies.record(performance.now() - start)
    }
  })
  return Effect.all(
    Array.from({ length: Math.min(width, messages) }, () => worker),
    { concurrency: "unbounded", discard: true }
  )
}

/** Runs `consumer` until it has called back `messages` times. It ends with the run. */
export const until = <R>(messages: number, consumer: (handled: () => void) => Effect.Effect<unknown, unknown, R>) =>
  Effect.gen(function* () {
    const done = yield* Deferred.make<void, unknown>()
    let left = messages
    const handled = () => {
      if (--left === 0) Deferred.unsafeDone(done, Effect.void)
    }
    yield* Effect.forkScoped(Effect.onError(consumer(handled), (cause) => Deferred.failCause(done, cause)))
    yield* Deferred.await(done)
  })

export const outgoing = ({ queue, size }: Setting) => {
  const content = Buffer.alloc(size, "x")
  return () => ({ routingKey: queue, content, persistent: false })
}
