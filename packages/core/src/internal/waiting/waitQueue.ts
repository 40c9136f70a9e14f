/**
 * An intrusive FIFO wait queue.
 *
 * The list is linked through its members. A member that gives up leaves from the middle, and thousands may leave at
 * once, so leaving must not cost a search. The queue keeps no reference to a member that has left: see `deadlines`.
 */

/** The links of a member. Only the wait queue sets them. */
export interface QueueNode<Member extends QueueNode<Member>> {
  /** The wait queue that the member is in. */
  waitQueue: WaitQueue<Member> | undefined
  previous: Member | undefined
  next: Member | undefined
}

export class WaitQueue<Member extends QueueNode<Member>> {
  size = 0
  first: Member | undefined = undefined
  #last: Member | undefined = undefined

  add(member: Member): void {
    member.waitQueue = this
    member.previous = this.#last
    member.next = undefined
    if (this.#last === undefined) this.first = member
    else this.#last.next = member
    this.#last = member
    this.size++
  }

  /** Puts back a member that had its turn and could not use it. It is the next one again. */
  addFirst(member: Member): void {
    member.waitQueue = this
    member.previous = undefined
    member.next = this.first
    if (this.first === undefined) this.#last = member
    else this.first.previous = member
    this.first = member
    this.size++
  }

  /** Returns whether the member was in this wait queue. */
  remove(member: Member): boolean {
    if (member.waitQueue !== this) return false
    const { next: after, previous: before } = member
    if (before === undefined) this.first = after
    else before.next = after
    if (after === undefined) this.#last = before
    else after.previous = before
    member.waitQueue = member.previous = member.next = undefined
    this.size--
    return true
  }

  /** All waiting members, in order. This is a copy, because a member that is notified may come back at once. */
  *[Symbol.iterator](): Generator<Member> {
    const all: Array<Member> = []
    for (let member = this.first; member !== undefined; member = member.next) all.push(member)
    yield* all
  }
}
