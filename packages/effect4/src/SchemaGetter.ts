export * from "effect/SchemaGetter"
