/* A list that the server tells a page at a time. */

export class Pages {
  /** `ask` gets a cursor, null at first, and answers with a page; `take` gets the rows of each. */
  constructor(ask, take) {
    this.ask = ask;
    this.take = take;
    this.reset();
  }

  /** From the first page on again. One that is still under way is dropped when it comes. */
  reset() {
    this.cursor = null;
    this.hasMore = true;
    this.underWay = null;
    this.round = {};
  }

  /** Takes the next page; who asks while it is under way waits for the same one. */
  async more() {
    if (!this.hasMore) return;
    this.underWay ||= this.next();
    await this.underWay;
  }

  async next() {
    const { round } = this;
    try {
      const page = await this.ask(this.cursor);
      if (round !== this.round) return;
      this.cursor = page.next_cursor;
      this.hasMore = Boolean(page.next_cursor);
      this.take(page.items);
    } finally {
      if (round === this.round) this.underWay = null;
    }
  }
}
