/** Confirmation before anything that cannot be undone. */
import * as Effect from "effect/Effect"
import * as Prompt from "effect/cli/Prompt"
import { usage } from "../failure.ts"
import { Output } from "./Output.ts"
import * as Text from "./text.ts"

/**
 * Asks, and fails unless the answer is yes. `--yes` answers for scripts. Without a terminal it refuses.
 */
export const confirm = Effect.fnUntraced(function* (question: string, isAnswered: boolean) {
  if (isAnswered) return
  const { canPrompt, isJson } = yield* Output
  if (!canPrompt || isJson) {
    return yield* usage(
      `${question} This needs a confirmation, and there is no terminal to ask in${isJson && canPrompt ? " with --json" : ""}. Nothing was done.`,
      "Add --yes, or try it with --dry-run first."
    )
  }
  const answer = yield* Prompt.run(Prompt.Confirm({ message: Text.line(question) }))
  if (!answer) return yield* usage("Not confirmed. Nothing was done.")
})
