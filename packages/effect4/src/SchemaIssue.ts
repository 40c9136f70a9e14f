export * from "effect/SchemaIssue"
