export * from "effect/References"
