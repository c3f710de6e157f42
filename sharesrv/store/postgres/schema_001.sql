-- Times are milliseconds since 1970 UTC, 0 for never. The numbers of origin, state and cause are those of domain/share.py; a
-- state below 4 is live, below 2 it waits. Text is compared byte by byte, as SQLite does.

CREATE TABLE cluster ( -- one row
    id text NOT NULL -- names the bus's subjects: two clusters may share one NATS
);
INSERT INTO cluster (id) VALUES (replace(gen_random_uuid()::text, '-', ''));

CREATE TABLE account (
    id text COLLATE "C" PRIMARY KEY,
    uid text NOT NULL,
    uid_folded text COLLATE "C" NOT NULL UNIQUE,
    nickname text NOT NULL DEFAULT '',
    token_serial bigint NOT NULL DEFAULT 0, -- of the newest token; a lower one is superseded
    created_ms bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 1
);

CREATE TABLE token (
    digest text COLLATE "C" PRIMARY KEY, -- SHA-256 of the token, which itself is nowhere
    account_id text COLLATE "C" NOT NULL REFERENCES account ON DELETE CASCADE,
    serial bigint NOT NULL,
    expires_ms bigint NOT NULL
);
CREATE INDEX token_account ON token (account_id);
CREATE INDEX token_expires ON token (expires_ms) WHERE expires_ms > 0; -- retention

CREATE TABLE device (
    id text COLLATE "C" PRIMARY KEY,
    owner_id text COLLATE "C" NOT NULL REFERENCES account,
    name text COLLATE "C" NOT NULL,
    bridge_id text COLLATE "C" REFERENCES device,
    verified smallint NOT NULL,
    shareable smallint NOT NULL,
    key_digest text NOT NULL, -- SHA-256 of the devicekey
    pk text COLLATE "C",
    dk text COLLATE "C",
    auth_key text,
    uiid bigint,
    created_ms bigint NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX device_keys ON device (pk, dk) WHERE pk IS NOT NULL;
CREATE INDEX device_bridge ON device (bridge_id) WHERE bridge_id IS NOT NULL;
CREATE INDEX device_owner ON device (owner_id);
CREATE INDEX device_name ON device (lower(name), id); -- the console's search; written when a device comes, goes or is renamed

CREATE TABLE device_params (
    device_id text COLLATE "C" PRIMARY KEY REFERENCES device ON DELETE CASCADE,
    params text NOT NULL -- a JSON object
);

CREATE TABLE share (
    id bigint PRIMARY KEY,
    code text COLLATE "C" NOT NULL UNIQUE,
    origin smallint NOT NULL,
    state smallint NOT NULL,
    device_id text COLLATE "C" NOT NULL,
    sharer_id text COLLATE "C" NOT NULL,
    sharee_id text COLLATE "C",
    asked text NOT NULL, -- what the sharer wrote, JSON
    created_ms bigint NOT NULL,
    deadline_ms bigint NOT NULL,
    sequence text COLLATE "C" NOT NULL,
    cause smallint NOT NULL,
    permit smallint NOT NULL,
    note text NOT NULL,
    cover_mark smallint NOT NULL,
    accepted_ms bigint NOT NULL,
    ends_ms bigint NOT NULL,
    settled_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    told smallint NOT NULL, -- 0 from a `share` request until the sharer has received its answer
    bridge_offer_id bigint NOT NULL,
    device_name text NOT NULL, -- the sharee's own name for it
    version bigint NOT NULL,
    node smallint NOT NULL -- the number of the node that wrote it last, whose alarm rings for it
);
-- Every command about a device asks this: its live shares, of one account or of all.
CREATE INDEX share_live ON share (device_id, sharee_id) WHERE state < 4;
-- A handshake asks what waits for its account, a device list what it holds.
CREATE INDEX share_sharee ON share (sharee_id, deadline_ms) WHERE state < 4;
-- A handshake asks which answers its account has not received, a request how many are open.
CREATE INDEX share_sharer ON share (sharer_id, deadline_ms) WHERE told = 0;
-- A page of the history of a device.
CREATE INDEX share_ended ON share (device_id, id) WHERE state > 4;
-- Retention: what has long been over.
CREATE INDEX share_over ON share (settled_ms) WHERE state > 3 AND told = 1;
-- An answer without s_seq.
CREATE INDEX share_asked ON share (device_id, sharee_id, sequence);
-- The alarm: what comes due, and when.
CREATE INDEX share_deadline ON share (deadline_ms) WHERE state < 2;
CREATE INDEX share_ends ON share (ends_ms) WHERE state = 2 AND ends_ms > 0;
-- How many share codes and invitations of a device wait, and which.
CREATE INDEX share_codes ON share (device_id, deadline_ms, state, origin) WHERE state < 2 AND origin BETWEEN 1 AND 2;
-- How many invitations of an account wait.
CREATE INDEX share_invited ON share (sharer_id, deadline_ms) WHERE state = 0 AND origin = 1;
-- How long a request that timed out cannot be repeated.
CREATE INDEX share_timed_out ON share (device_id, sharee_id, deadline_ms) WHERE state = 7 AND origin = 0;

CREATE TABLE journal ( -- only ever added to
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms bigint NOT NULL,
    share_id bigint NOT NULL,
    device_id text COLLATE "C" NOT NULL,
    sharer_id text COLLATE "C" NOT NULL,
    sharee_id text COLLATE "C",
    from_state smallint, -- NULL where the share was made
    to_state smallint NOT NULL,
    cause smallint NOT NULL,
    by text NOT NULL,
    channel smallint NOT NULL,
    chain smallint NOT NULL, -- the number of the node that wrote it, 0 for a verb; see store/chain.py
    place bigint NOT NULL, -- in the chain, from 1 on
    hash bytea NOT NULL
);
CREATE INDEX journal_share ON journal (share_id); -- a device's rows are those of its shares
-- Ids are given at insert and seen at commit. A transaction says, as a lock that stops nobody, behind which id its rows will
-- be, before it gets any; readers stop there.
CREATE FUNCTION journal_begins() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_advisory_xact_lock_shared(last_value - (NOT is_called)::int) FROM journal_id_seq;
    RETURN NULL;
END $$;
CREATE TRIGGER journal_begins BEFORE INSERT ON journal EXECUTE FUNCTION journal_begins();

CREATE TABLE chain ( -- where each chain of the journal begins and ends
    id smallint PRIMARY KEY,
    trimmed bigint NOT NULL, -- the place of the last row that retention took, 0 for none
    trimmed_hash bytea NOT NULL,
    last bigint NOT NULL, -- the place of the last row
    last_hash bytea NOT NULL
);

CREATE TABLE writer ( -- the last batch of each process that writes: by it a commit whose answer was lost is looked up
    id bigint PRIMARY KEY,
    batch bigint NOT NULL -- begins with the time
);

CREATE TABLE left_notice ( -- what a process without connections, an import, leaves to be told by a node
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    notice bytea NOT NULL -- JSON
);

-- The nodes that run, and the connections that they hold. A node that finds its row gone writes it, and its sessions, anew.
CREATE UNLOGGED TABLE node (
    id bigint PRIMARY KEY, -- a new one at each start; names its subject on the bus
    number smallint NOT NULL UNIQUE CHECK (number BETWEEN 1 AND 1023), -- 10 bits of the ids that it makes
    host text NOT NULL,
    started_ms bigint NOT NULL,
    beat_ms bigint NOT NULL,
    leaves boolean NOT NULL DEFAULT false
);
CREATE UNLOGGED TABLE session (
    id bigint PRIMARY KEY,
    node_id bigint NOT NULL,
    account_id text COLLATE "C", -- of an app's session
    device_id text COLLATE "C" -- of a device's session
);
CREATE INDEX session_node ON session (node_id);
CREATE INDEX session_account ON session (account_id) WHERE account_id IS NOT NULL;
CREATE INDEX session_device ON session (device_id) WHERE device_id IS NOT NULL;
