export * from "effect/Pull"
