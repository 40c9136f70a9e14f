export * from "effect/BigDecimal"
