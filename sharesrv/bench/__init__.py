"""The load generator: scenarios, the floor, the suite with its figures. It knows the server from outside only.

What was tried to make the server fast, and what it gave. Measured on the virtual machine of the README's table, two cores,
whose speed changes by 1.6 within minutes: so in turns, medians, or the CPU time of one part alone.

Kept:

- What the process keeps is frozen, and the collector's thresholds are raised. It had taken a quarter of the server's CPU;
  the slowest share with 100 pairs took 120 to 140 ms, then 48.
- Rules look up what they need in the store's thread, one prepared statement a question, in the batch's own transaction. Rows
  stay in memory from batch to batch until somebody else writes: an answer and a mark read nothing, which is two thirds of
  the reading. A rule says which columns changed. A lookup through a bridge's sub-devices needs its join's order forced: with
  the planner's choice it read all that the sharee holds, and a share took twice the CPU.
- Numbers for states, and no list in an index's predicate: SQLite builds a temporary table of it for each row written. One
  index for whatever is asked of a sharee, in which a share stays while it lives, and one for whatever its sharer is owed.
- Plain text frames read and written beside the library's parser, counters as plain integers, fewer steps a frame: the edge
  alone, from bytes to a command and from a notice to bytes, took 40 us a share, then 19.
- Random bytes taken from the system a kilobyte at a time, instead of a system call for each id and code.
- A share code begins with the time: 14 % of SQLite's part with 40,000 stored, and more the larger the store is.
- The opening handshake's parser goes when it is done: an idle connection takes 5.1 KiB instead of 8.2.
- A share's tree looked up once a rule.
- An import does not look for garbage, nor search every line for U+0000: 31 s for 500,000 shares, then 25.

Not kept:

- SQLite in the loop's own thread: 12 % with 8 pairs, 2 to 15 % with 100. But a database that an import has locked, or that
  is not in memory, would hold up every connection.
- One write a socket at the end of the loop's turn: no difference in seven runs each way, since a socket seldom has two
  frames in a batch. A turn of the loop before each batch: none either.
- A larger cache, memory-mapped reads, a checkpoint every 8,000 pages: 2 to 4 %, within the noise. Pages of 1, 2 or 8 KiB
  instead of 4: slower.
- Rows read for a whole batch at once by `json_each`, declared before the rules run: dearer than single lookups.
- Rows read anew in each batch: 20 to 30 us a share more.

What is left is spread thin over the writing of pages, the rules' small calls, and the kernel's part of the sockets. Of the
transport and the loop the floor is made too, so what makes them faster makes both faster.
"""
