"""The load generator: scenarios, the floor, the suite with its figures. It knows the server from outside only.

What was tried to make the server fast, and what it gave. Measured on the virtual machine of the README's table, two cores,
whose speed changes by 1.6 within minutes: so in turns, medians, or the CPU time of one part alone.

Kept:

- What the process keeps is frozen, and the collector's thresholds are raised. It had taken a quarter of the server's CPU;
  the slowest share with 100 pairs took 120 to 140 ms, then 48.
- Facts stay in memory from batch to batch until somebody else writes, so that an answer and a mark read nothing. An update
  writes the changed columns only, one index of a device's shares took the place of three, and the marks of received answers
  are one command a batch. SQLite's part of a share, with 20,000 stored, fell from 170 to 50 us of its thread.
- A share code begins with the time: 14 % of SQLite's part with 40,000 stored, and more the larger the store is.
- The opening handshake's parser goes when it is done: an idle connection takes 5.1 KiB instead of 8.2.
- A queue and a call back between loop and store, not an executor's future: 9 % with 8 pairs, nothing with 100.
- Names gathered as tuples, one set difference a batch, a share's tree looked up once: 470 Python calls a share, then 360.
- An import does not look for garbage, nor search every line for U+0000: 31 s for 500,000 shares, then 25.

Not kept:

- SQLite in the loop's own thread: 12 % with 8 pairs, 2 to 15 % with 100. But a database that an import has locked, or that
  is not in memory, would hold up every connection.
- One write a socket at the end of the loop's turn: no difference in seven runs each way, since a socket seldom has two
  frames in a batch. A turn of the loop before each batch: none either.
- A larger cache, memory-mapped reads, a checkpoint every 8,000 pages: 2 to 4 %, within the noise. Pages of 1, 2 or 8 KiB
  instead of 4: slower.
- The header of a frame written by hand: it makes the floor faster by as much as the server.
- Counters without a lock instead of prometheus_client's: 2 %.

What is left is spread thin, as `sharesrv bench rooms` shows. Of the transport and the loop the floor is made too; behind
them come SQLite, two fifths of it the writing of pages, and some 200 small calls of the rules. No single one holds 5 %.
"""
