-- Times are milliseconds since 1970 UTC, 0 for never. Ids and codes begin with the time, so that new rows stand side by side.

CREATE TABLE account (
    id TEXT PRIMARY KEY,
    uid TEXT NOT NULL,
    uid_folded TEXT NOT NULL UNIQUE,
    nickname TEXT NOT NULL DEFAULT '',
    token_serial INTEGER NOT NULL DEFAULT 0, -- of the newest token; a lower one is superseded
    created_ms INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1
) STRICT, WITHOUT ROWID;

CREATE TABLE token (
    digest TEXT PRIMARY KEY, -- SHA-256 of the token, which itself is nowhere
    account_id TEXT NOT NULL REFERENCES account ON DELETE CASCADE,
    serial INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX token_account ON token (account_id);
CREATE INDEX token_expires ON token (expires_ms) WHERE expires_ms > 0; -- retention

CREATE TABLE device (
    id TEXT PRIMARY KEY,
    owner_id TEXT NOT NULL REFERENCES account,
    name TEXT NOT NULL,
    bridge_id TEXT REFERENCES device,
    verified INTEGER NOT NULL,
    shareable INTEGER NOT NULL,
    key_digest TEXT NOT NULL, -- SHA-256 of the devicekey
    pk TEXT,
    dk TEXT,
    auth_key TEXT,
    uiid INTEGER,
    created_ms INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE UNIQUE INDEX device_keys ON device (pk, dk) WHERE pk IS NOT NULL;
CREATE INDEX device_bridge ON device (bridge_id) WHERE bridge_id IS NOT NULL;
CREATE INDEX device_owner ON device (owner_id);
CREATE INDEX device_name ON device (lower(name), id); -- the console's search; written when a device comes, goes or is renamed

CREATE TABLE device_params (
    device_id TEXT PRIMARY KEY REFERENCES device ON DELETE CASCADE,
    params TEXT NOT NULL -- a JSON object
) STRICT;

-- The numbers of origin, state and cause are those of domain/share.py; a state below 4 is live, below 2 it waits. No index has
-- a list in its predicate: SQLite builds a temporary table of it for every row written (5 to 23 us).
CREATE TABLE share (
    id INTEGER PRIMARY KEY,
    code TEXT NOT NULL UNIQUE,
    origin INTEGER NOT NULL,
    state INTEGER NOT NULL,
    device_id TEXT NOT NULL,
    sharer_id TEXT NOT NULL,
    sharee_id TEXT,
    asked TEXT NOT NULL, -- what the sharer wrote, JSON
    created_ms INTEGER NOT NULL,
    deadline_ms INTEGER NOT NULL,
    sequence TEXT NOT NULL,
    cause INTEGER NOT NULL,
    permit INTEGER NOT NULL,
    note TEXT NOT NULL,
    cover_mark INTEGER NOT NULL,
    accepted_ms INTEGER NOT NULL,
    ends_ms INTEGER NOT NULL,
    settled_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    told INTEGER NOT NULL, -- 0 from a `share` request until the sharer has received its answer
    bridge_offer_id INTEGER NOT NULL,
    device_name TEXT NOT NULL, -- the sharee's own name for it
    version INTEGER NOT NULL
) STRICT;
-- Every command about a device asks this: its live shares, of one account or of all. Written when a share begins and ends.
CREATE INDEX share_live ON share (device_id, sharee_id) WHERE state < 4;
-- A handshake asks what waits for its account, a device list what it holds. A share stays in its place while it lives.
CREATE INDEX share_sharee ON share (sharee_id, deadline_ms) WHERE state < 4;
-- A handshake asks which answers its account has not received, a request how many are open. Written at both ends of that.
CREATE INDEX share_sharer ON share (sharer_id, deadline_ms) WHERE told = 0;
-- A page of the history of a device. Written when a share is over.
CREATE INDEX share_ended ON share (device_id) WHERE state > 4;
-- Retention: what has long been over. Written when a share is over and its answer received, never for one that lives.
CREATE INDEX share_over ON share (settled_ms) WHERE state > 3 AND told = 1;
-- An answer without s_seq. Written once.
CREATE INDEX share_asked ON share (device_id, sharee_id, sequence);
-- The alarm: what comes due, and when. An offer is written into it and out of it, a grant without an end never.
CREATE INDEX share_deadline ON share (deadline_ms) WHERE state < 2;
CREATE INDEX share_ends ON share (ends_ms) WHERE state = 2 AND ends_ms > 0;
-- How many share codes and invitations of a device wait, and which. Nothing for a live request.
CREATE INDEX share_codes ON share (device_id, deadline_ms, state, origin) WHERE state < 2 AND origin BETWEEN 1 AND 2;
-- How many invitations of an account wait. Nothing for a live request, which share_sharer counts.
CREATE INDEX share_invited ON share (sharer_id, deadline_ms) WHERE state = 0 AND origin = 1;
-- How long a request that timed out cannot be repeated. Nothing for a request that is answered.
CREATE INDEX share_timed_out ON share (device_id, sharee_id, deadline_ms) WHERE state = 7 AND origin = 0;

CREATE TABLE journal ( -- only ever added to
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    share_id INTEGER NOT NULL,
    device_id TEXT NOT NULL,
    sharer_id TEXT NOT NULL,
    sharee_id TEXT,
    from_state INTEGER, -- NULL where the share was made
    to_state INTEGER NOT NULL,
    cause INTEGER NOT NULL,
    by TEXT NOT NULL,
    channel INTEGER NOT NULL,
    chain INTEGER NOT NULL, -- see store/chain.py
    place INTEGER NOT NULL, -- in the chain, from 1 on
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX journal_share ON journal (share_id); -- a device's rows are those of its shares

CREATE TABLE chain ( -- where each chain of the journal begins and ends
    id INTEGER PRIMARY KEY,
    trimmed INTEGER NOT NULL, -- the place of the last row that retention took, 0 for none
    trimmed_hash BLOB NOT NULL,
    last INTEGER NOT NULL, -- the place of the last row
    last_hash BLOB NOT NULL
) STRICT;

CREATE TABLE left_notice ( -- what a process without connections, an import, leaves to be told by the server
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    notice BLOB NOT NULL -- JSON
) STRICT;
