/**
 * Those who wait, first come, first served.
 *
 * A list linked through its members: one that gives up leaves from the middle, and thousands may at once, so leaving must
 * not cost a search. And what has left is let go of: see `deadlines`.
 */

/** What a member of a line has for it: only the line sets these. */
export interface InLine<Member extends InLine<Member>> {
  /** The line that it is in. */
  line: Line<Member> | undefined
  before: Member | undefined
  after: Member | undefined
}

export class Line<Member extends InLine<Member>> {
  size = 0
  first: Member | undefined = undefined
  #last: Member | undefined = undefined

  add(member: Member): void {
    member.line = this
    member.before = this.#last
    member.after = undefined
    if (this.#last === undefined) this.first = member
    else this.#last.after = member
    this.#last = member
    this.size++
  }

  /** For one that had its turn and could not use it: it is the next again. */
  addFirst(member: Member): void {
    member.line = this
    member.before = undefined
    member.after = this.first
    if (this.first === undefined) this.#last = member
    else this.first.before = member
    this.first = member
    this.size++
  }

  /** Whether it was in this line. */
  remove(member: Member): boolean {
    if (member.line !== this) return false
    const { after, before } = member
    if (before === undefined) this.first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    member.line = member.before = member.after = undefined
    this.size--
    return true
  }

  /** Everyone who waits now, in order: a copy, since whoever is told something may come back at once. */
  *[Symbol.iterator](): Generator<Member> {
    const all: Array<Member> = []
    for (let member = this.first; member !== undefined; member = member.after) all.push(member)
    yield* all
  }
}
