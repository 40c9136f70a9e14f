/**
 * The error of this library and its reasons.
 *
 * @since 0.1.0
 */
export * from "./model/error.ts"
