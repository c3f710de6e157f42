"""The load generator: scenarios, the floor and the suite with its figures. It knows the server from outside only.

What was tried to make the server fast, and what it gave (a virtual machine of two cores whose speed changes by 1.6 within
minutes, so runs in turns, and medians):

- Kept: objects that live as long as the process are frozen, and the garbage collector runs less often: it took a quarter of
  the CPU, and the slowest share with 100 pairs fell from 130 to 48 ms.
- Kept: rules read single rows by prepared statements in the store's thread, inside the batch's transaction, and rows stay in
  memory until another process writes. One `json_each` query a batch was slower; reading anew in each batch cost 20 to 30 µs.
- Kept: numbers for states, no list in an index's predicate (SQLite builds a temporary table of it for each row written), one
  index for all questions about a sharee, share codes that begin with the time (14 % of SQLite's part).
- Kept: a page cache that holds what a busy writer touches, and a checkpoint after more pages: 6 % of the CPU.
- Kept: plain text frames read and written beside the library's parser, integers as counters: an edge of 40 µs became 19.
- Kept: random bytes taken from the system a kilobyte at a time; the handshake's parser dropped after the handshake (an idle
  connection fell from 8.2 to 5.1 KiB); an import without garbage collection (31 s became 25).
- Not kept: SQLite in the event loop's thread (2 to 15 % faster, but a locked or cold database holds up every connection); a
  single write for each socket and turn of the loop, a turn of the loop before each batch, memory-mapped reads (no difference
  or within the noise); pages of 1, 2 or 8 KiB instead of 4 (slower).
- What is left is spread thin: writing pages, the rules' small calls, the kernel's part of the sockets.
"""
