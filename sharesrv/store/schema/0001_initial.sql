-- Times are milliseconds since 1970 UTC, 0 for never. Partial indexes hold live rows only, so that history costs nothing.

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

CREATE TABLE device (
    id TEXT PRIMARY KEY,
    owner_id TEXT NOT NULL REFERENCES account,
    name TEXT NOT NULL,
    key_digest TEXT NOT NULL, -- SHA-256 of the devicekey
    pk TEXT,
    dk TEXT,
    uiid INTEGER,
    bridge_id TEXT REFERENCES device,
    auth_key TEXT,
    verified INTEGER NOT NULL,
    shareable INTEGER NOT NULL,
    created_ms INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE UNIQUE INDEX device_keys ON device (pk, dk) WHERE pk IS NOT NULL;
CREATE INDEX device_bridge ON device (bridge_id) WHERE bridge_id IS NOT NULL;
CREATE INDEX device_owner ON device (owner_id);

CREATE TABLE device_params (
    device_id TEXT PRIMARY KEY REFERENCES device ON DELETE CASCADE,
    params TEXT NOT NULL -- a JSON object
) STRICT;

CREATE TABLE share (
    id INTEGER PRIMARY KEY, -- ordered by time
    code TEXT NOT NULL UNIQUE,
    door TEXT NOT NULL,
    state TEXT NOT NULL,
    device_id TEXT NOT NULL,
    sharer_id TEXT NOT NULL,
    sharee_id TEXT,
    asked TEXT NOT NULL, -- what the sharer wrote, JSON
    created_ms INTEGER NOT NULL,
    deadline_ms INTEGER NOT NULL,
    sequence TEXT NOT NULL,
    cause TEXT NOT NULL,
    permit INTEGER NOT NULL,
    note TEXT NOT NULL,
    cover_mark INTEGER NOT NULL,
    accepted_ms INTEGER NOT NULL,
    ends_ms INTEGER NOT NULL,
    settled_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    owed INTEGER NOT NULL, -- 1 while the sharer has not received its answer
    bridge_offer_id INTEGER NOT NULL,
    device_name TEXT NOT NULL, -- the sharee's own name for it
    version INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX share_offer ON share (device_id, sharee_id) WHERE state = 'open' AND door = 'offer';
CREATE INDEX share_live ON share (device_id, sharee_id) WHERE state IN ('open', 'joined', 'active', 'barred');
CREATE INDEX share_cooling ON share (device_id, sharee_id, deadline_ms) WHERE state = 'timed_out' AND door = 'offer';
CREATE INDEX share_asked ON share (sharee_id, device_id, sequence, id) WHERE door IN ('offer', 'invitation');
CREATE INDEX share_inbox ON share (sharee_id) WHERE state = 'open';
CREATE INDEX share_outbox ON share (sharer_id) WHERE state = 'open' AND door = 'offer';
CREATE INDEX share_owed ON share (sharer_id) WHERE owed = 1;
CREATE INDEX share_codes ON share (device_id) WHERE state = 'open' AND door IN ('code', 'invitation');
CREATE INDEX share_held ON share (sharee_id, sharer_id) WHERE state = 'active';
CREATE INDEX share_device ON share (device_id);
CREATE INDEX share_deadline ON share (deadline_ms) WHERE state = 'open';
CREATE INDEX share_ends ON share (ends_ms) WHERE state = 'active' AND ends_ms > 0;

CREATE TABLE journal ( -- only ever added to
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    share_id INTEGER NOT NULL,
    device_id TEXT NOT NULL,
    sharer_id TEXT NOT NULL,
    sharee_id TEXT,
    from_state TEXT NOT NULL, -- '' where the share was made
    to_state TEXT NOT NULL,
    cause TEXT NOT NULL,
    by TEXT NOT NULL,
    door TEXT NOT NULL
) STRICT;
CREATE INDEX journal_device ON journal (device_id);
CREATE INDEX journal_share ON journal (share_id);
CREATE INDEX journal_import ON journal (id) WHERE door IN ('import', 'admin');
