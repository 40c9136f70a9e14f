/** The broker's refusal of one channel too many: it says so in a text only. */

export const refusal = /number of channels opened .* has reached the maximum allowed (?:user )?limit of \(?(\d+)/s

/** The limit that the broker names when it closes a connection over one channel too many; `undefined`: another reason. */
export const channelLimitIn = (text: string): number | undefined => {
  const limit = refusal.exec(text)?.[1]
  return limit === undefined ? undefined : Number(limit)
}
