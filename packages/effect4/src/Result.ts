export * from "effect/Result"
