import { versionSchema } from './version-schema.ts';

/**
 * One database with all that has been seen to be lost on the way, on top of what `versionSchema` makes: objects of every
 * kind with owners, grants, comments and states, and an application that fires an audit trigger and circular keys.
 */
export function everythingSchema(major: number): { roles: string; schema: string; settings: string; writes: string[] } {
  const common = versionSchema(major);
  return {
    roles: `${common.roles}\n${ROLES}`,
    schema: `${common.schema}\n${OBJECTS}\n${LATE}`,
    settings: SETTINGS,
    writes: [...common.writes, ...WRITES],
  };
}

const ROLES = `
CREATE ROLE auditor NOLOGIN BYPASSRLS; CREATE ROLE staff NOLOGIN; CREATE ROLE clerk LOGIN PASSWORD 'clerk' IN ROLE staff;
ALTER ROLE clerk SET search_path = firm, "$user", public; COMMENT ON ROLE auditor IS 'reads what others did';
ALTER ROLE ALL SET lock_timeout = '55s';
`;

const OBJECTS = `
CREATE SCHEMA firm AUTHORIZATION staff; COMMENT ON SCHEMA firm IS 'circular and audited'; GRANT USAGE ON SCHEMA firm TO clerk, auditor;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO auditor; ALTER DEFAULT PRIVILEGES FOR ROLE staff REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON TYPES TO clerk WITH GRANT OPTION; GRANT CREATE ON SCHEMA public TO staff WITH GRANT OPTION; COMMENT ON SCHEMA public IS 'not the usual one';

-- an audit trigger: twice as many rows, or none, where a migration fires it
CREATE TABLE firm.audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), who name NOT NULL DEFAULT session_user,
  what text NOT NULL, old jsonb, new jsonb) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.01);
CREATE FUNCTION firm.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$ BEGIN
  INSERT INTO firm.audit (what, old, new) VALUES (TG_OP || ' ' || TG_TABLE_NAME, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END, CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
  RETURN NULL; END $$;

-- circular keys: at once, deferred, to itself, and with a partitioned table in the circle
CREATE TABLE firm.department (id int PRIMARY KEY, name text NOT NULL UNIQUE, head int NOT NULL, rank int);
CREATE TABLE firm.employee (id int PRIMARY KEY, department int NOT NULL REFERENCES firm.department ON DELETE CASCADE, boss int REFERENCES firm.employee ON DELETE SET NULL,
  review int, review_year int, salary numeric(10,2) CHECK (salary > 0), notes text COLLATE "C");
ALTER TABLE firm.department ADD CONSTRAINT head_fk FOREIGN KEY (head) REFERENCES firm.employee DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE firm.review (id int, year int, employee int NOT NULL REFERENCES firm.employee ON DELETE CASCADE, grade int, PRIMARY KEY (id, year)) PARTITION BY RANGE (year);
CREATE TABLE firm.review_old PARTITION OF firm.review FOR VALUES FROM (MINVALUE) TO (2025); CREATE TABLE firm.review_new PARTITION OF firm.review FOR VALUES FROM (2025) TO (MAXVALUE);
ALTER TABLE firm.employee ADD CONSTRAINT review_fk FOREIGN KEY (review, review_year) REFERENCES firm.review (id, year) DEFERRABLE INITIALLY IMMEDIATE;
ALTER TABLE firm.employee ADD CONSTRAINT unchecked CHECK (boss <> id) NOT VALID;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON firm.department FOR EACH ROW EXECUTE FUNCTION firm.note();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON firm.employee FOR EACH ROW EXECUTE FUNCTION firm.note();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON firm.review FOR EACH ROW EXECUTE FUNCTION firm.note();
BEGIN; INSERT INTO firm.department SELECT g, 'Department ' || g, g * 10, g % 3 FROM generate_series(1, 20) g;
INSERT INTO firm.employee SELECT g, 1 + (g - 1) / 10, NULLIF(greatest(g / 10 * 10, 1), g), NULL, NULL, 1000 + g, repeat('n', g) FROM generate_series(1, 200) g; COMMIT;
INSERT INTO firm.review SELECT g, 2020 + g % 10, 1 + g % 200, g % 5 FROM generate_series(1, 400) g;
UPDATE firm.employee SET review = id, review_year = 2020 + id % 10 WHERE id < 100;

-- how a table is stored and found
CREATE INDEX by_rank ON firm.department (rank DESC NULLS LAST, lower(name) text_pattern_ops) INCLUDE (head) WHERE rank > 0;
CREATE INDEX by_name ON firm.department (name) WITH (fillfactor = 70); ALTER TABLE firm.department CLUSTER ON by_name; COMMENT ON INDEX firm.by_name IS 'clustered';
CREATE INDEX ON firm.employee ((salary * 12), (notes || 'x')); ALTER INDEX firm.employee_expr_expr1_idx ALTER COLUMN 1 SET STATISTICS 321;
ALTER TABLE firm.employee ALTER COLUMN notes SET STORAGE EXTERNAL, ALTER COLUMN salary SET STATISTICS 50, ALTER COLUMN salary SET (n_distinct = -0.5), SET (parallel_workers = 1, toast.autovacuum_enabled = off);
CREATE TABLE firm.packed (id int NOT NULL, code text NOT NULL, body text STORAGE MAIN COMPRESSION pglz, CONSTRAINT "Packed; key" PRIMARY KEY (id)); CREATE UNIQUE INDEX packed_code ON firm.packed (code);
ALTER TABLE firm.packed REPLICA IDENTITY USING INDEX packed_code; INSERT INTO firm.packed SELECT g, 'c' || g, repeat(md5(g::text), 500) FROM generate_series(1, 50) g;
CREATE STATISTICS firm.wage (ndistinct, dependencies, mcv) ON department, salary FROM firm.employee; ALTER STATISTICS firm.wage SET STATISTICS 77; COMMENT ON STATISTICS firm.wage IS 'who gets what';
CREATE STATISTICS firm.expression ON (salary * 12) FROM firm.employee; ALTER STATISTICS firm.expression OWNER TO staff;

-- triggers and rules in every state, on tables that nobody writes to
CREATE TABLE firm.states (id int PRIMARY KEY, at timestamptz); INSERT INTO firm.states SELECT g, now() FROM generate_series(1, 20) g;
CREATE FUNCTION firm.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'must not be fired'; END $$;
CREATE TRIGGER t_origin BEFORE INSERT ON firm.states FOR EACH ROW EXECUTE FUNCTION firm.refuse(); CREATE TRIGGER t_off BEFORE INSERT ON firm.states FOR EACH ROW EXECUTE FUNCTION firm.refuse();
CREATE TRIGGER t_always BEFORE INSERT OR TRUNCATE ON firm.states FOR EACH STATEMENT EXECUTE FUNCTION firm.refuse(); CREATE CONSTRAINT TRIGGER t_replica AFTER INSERT ON firm.states DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION firm.refuse();
ALTER TABLE firm.states DISABLE TRIGGER t_off, ENABLE ALWAYS TRIGGER t_always, ENABLE REPLICA TRIGGER t_replica; COMMENT ON TRIGGER t_always ON firm.states IS 'always';
CREATE RULE r_always AS ON UPDATE TO firm.states DO ALSO NOTIFY updated; CREATE RULE r_off AS ON DELETE TO firm.states DO INSTEAD NOTHING; ALTER TABLE firm.states ENABLE ALWAYS RULE r_always, DISABLE RULE r_off;

-- casts, operators and what indexes by them
CREATE TYPE firm.temperature AS (degrees numeric); CREATE FUNCTION firm.degrees(firm.temperature) RETURNS numeric LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1.degrees';
CREATE FUNCTION firm.temperature(numeric) RETURNS firm.temperature LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ROW($1)::firm.temperature';
CREATE CAST (firm.temperature AS numeric) WITH FUNCTION firm.degrees(firm.temperature) AS IMPLICIT; CREATE CAST (numeric AS firm.temperature) WITH FUNCTION firm.temperature(numeric) AS ASSIGNMENT;
CREATE CAST (public.mood AS int) WITH INOUT; COMMENT ON CAST (public.mood AS int) IS 'in and out';
CREATE FUNCTION firm.abs_cmp(int, int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT btint4cmp(abs($1), abs($2))';
CREATE FUNCTION firm.abs_lt(int, int) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS 'SELECT abs($1) < abs($2)'; CREATE FUNCTION firm.abs_eq(int, int) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS 'SELECT abs($1) = abs($2)';
CREATE FUNCTION firm.abs_gt(int, int) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS 'SELECT abs($1) > abs($2)'; CREATE FUNCTION firm.abs_le(int, int) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS 'SELECT abs($1) <= abs($2)';
CREATE FUNCTION firm.abs_ge(int, int) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS 'SELECT abs($1) >= abs($2)';
CREATE OPERATOR firm.|<| (LEFTARG = int, RIGHTARG = int, FUNCTION = firm.abs_lt, COMMUTATOR = OPERATOR(firm.|>|)); CREATE OPERATOR firm.|>| (LEFTARG = int, RIGHTARG = int, FUNCTION = firm.abs_gt, COMMUTATOR = OPERATOR(firm.|<|));
CREATE OPERATOR firm.|<=| (LEFTARG = int, RIGHTARG = int, FUNCTION = firm.abs_le); CREATE OPERATOR firm.|>=| (LEFTARG = int, RIGHTARG = int, FUNCTION = firm.abs_ge); CREATE OPERATOR firm.|=| (LEFTARG = int, RIGHTARG = int, FUNCTION = firm.abs_eq);
CREATE OPERATOR FAMILY firm.by_size USING btree; CREATE OPERATOR CLASS firm.abs_ops FOR TYPE int USING btree FAMILY firm.by_size AS OPERATOR 1 firm.|<|, OPERATOR 2 firm.|<=|, OPERATOR 3 firm.|=|, OPERATOR 4 firm.|>=|, OPERATOR 5 firm.|>|, FUNCTION 1 firm.abs_cmp(int, int);
ALTER OPERATOR CLASS firm.abs_ops USING btree OWNER TO staff; CREATE INDEX by_size ON firm.employee (boss firm.abs_ops);
CREATE COLLATION firm.plain (locale = 'C', provider = libc); CREATE TEXT SEARCH DICTIONARY firm.words (TEMPLATE = simple, STOPWORDS = english); CREATE TEXT SEARCH CONFIGURATION firm.search (COPY = english);
ALTER TEXT SEARCH CONFIGURATION firm.search ALTER MAPPING FOR asciiword WITH firm.words; CREATE INDEX by_words ON firm.employee USING gin (to_tsvector('firm.search', notes));
CREATE ACCESS METHOD own_heap TYPE TABLE HANDLER heap_tableam_handler;
CREATE DEFAULT CONVERSION firm.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8; CREATE TABLE firm.other_heap (id int PRIMARY KEY) USING own_heap; INSERT INTO firm.other_heap VALUES (7);

-- foreign servers
CREATE EXTENSION postgres_fdw; CREATE FOREIGN DATA WRAPPER bare OPTIONS (debug 'true'); COMMENT ON FOREIGN DATA WRAPPER bare IS 'no handler'; GRANT USAGE ON FOREIGN DATA WRAPPER bare TO staff;
CREATE SERVER elsewhere TYPE 'pg' VERSION '9' FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere.example', dbname 'x''y'); ALTER SERVER elsewhere OWNER TO staff; GRANT USAGE ON FOREIGN SERVER elsewhere TO clerk;
CREATE USER MAPPING FOR clerk SERVER elsewhere OPTIONS (user 'far', password 'f''ar'); CREATE USER MAPPING FOR PUBLIC SERVER elsewhere; CREATE FOREIGN TABLE firm.far (id int OPTIONS (column_name 'ID'), v text) SERVER elsewhere OPTIONS (table_name 'Far');

-- security, views, sequences, large objects
ALTER TABLE firm.employee ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON firm.employee AS RESTRICTIVE FOR UPDATE TO auditor, clerk USING (salary < 5000) WITH CHECK (salary < 6000); COMMENT ON POLICY mine ON firm.employee IS 'not the rich';
CREATE VIEW firm.heads WITH (security_barrier, check_option = cascaded) AS SELECT id, name FROM firm.department WHERE rank > 0; GRANT INSERT ON firm.heads TO clerk WITH GRANT OPTION; ALTER VIEW firm.heads ALTER COLUMN name SET DEFAULT 'new';
CREATE RECURSIVE VIEW firm.chain (id, depth) AS SELECT id, 1 FROM firm.employee WHERE boss IS NULL UNION ALL SELECT e.id, depth + 1 FROM firm.employee e JOIN chain c ON e.boss = c.id;
CREATE MATERIALIZED VIEW firm.z_sums AS SELECT id % 3 AS rest, sum(id) AS sum FROM firm.states GROUP BY 1; CREATE VIEW firm.between AS SELECT max(sum) AS most FROM firm.z_sums;
CREATE MATERIALIZED VIEW firm.a_most AS SELECT most FROM firm.between; CREATE MATERIALIZED VIEW firm.unfilled AS SELECT 1 AS one WITH NO DATA; CREATE UNIQUE INDEX ON firm.z_sums (rest); GRANT SELECT ON firm.between TO staff; ALTER MATERIALIZED VIEW firm.a_most OWNER TO staff;
CREATE SEQUENCE firm.invoice START 1000 INCREMENT -5 MINVALUE -100000 MAXVALUE 1000 CACHE 7 CYCLE; SELECT nextval('firm.invoice'); CREATE SEQUENCE firm.unused START 42; CREATE TABLE firm.serial (id serial PRIMARY KEY); INSERT INTO firm.serial SELECT FROM generate_series(1, 9);
CREATE SEQUENCE firm.live; GRANT USAGE ON SEQUENCE firm.live TO clerk; CREATE UNLOGGED TABLE firm.fast (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v text); INSERT INTO firm.fast (v) SELECT 'v' || g FROM generate_series(1, 1000) g;
SELECT lo_from_bytea(5001, decode(repeat('00ff5c27', 200000), 'hex')), lo_from_bytea(5002, ''); ALTER LARGE OBJECT 5001 OWNER TO staff; GRANT SELECT ON LARGE OBJECT 5002 TO auditor; COMMENT ON LARGE OBJECT 5001 IS 'it''s large';
CREATE PUBLICATION everything_of_firm FOR TABLE firm.department, firm.review WITH (publish_via_partition_root); ALTER PUBLICATION everything_of_firm OWNER TO postgres; COMMENT ON PUBLICATION everything_of_firm IS 'theirs';
GRANT SELECT (id, name), UPDATE (rank) ON firm.department TO clerk; REVOKE SELECT ON firm.audit FROM auditor; GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO auditor; GRANT SELECT ON pg_catalog.pg_authid TO auditor;
ALTER TABLE firm.department OWNER TO staff; ALTER TABLE firm.employee OWNER TO staff; ALTER TABLE firm.review OWNER TO staff; ALTER SEQUENCE firm.invoice OWNER TO staff; ALTER FUNCTION firm.note() OWNER TO auditor; ALTER TABLE firm.audit OWNER TO auditor;
COMMENT ON TABLE firm.department IS 'it''s "round"'; COMMENT ON COLUMN firm.department.head IS 'comes later'; COMMENT ON CONSTRAINT head_fk ON firm.department IS 'deferred'; COMMENT ON FUNCTION firm.note() IS 'audits';
`;

/** What watches DDL: it would note, or refuse, every statement that a migration runs on the target. */
const LATE = `
CREATE TABLE firm.ddl (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tag text);
CREATE FUNCTION firm.note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO firm.ddl (tag) VALUES (TG_TAG); END $$;
CREATE EVENT TRIGGER note_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE INDEX', 'DROP TABLE') EXECUTE FUNCTION firm.note_ddl();
CREATE EVENT TRIGGER note_all ON ddl_command_start EXECUTE FUNCTION firm.note_ddl(); ALTER EVENT TRIGGER note_all DISABLE; COMMENT ON EVENT TRIGGER note_ddl IS 'notes';
`;

/** Of the database, run last: they reach whoever connects. */
const SETTINGS = `DO $$ BEGIN
  EXECUTE format('ALTER DATABASE %I SET search_path = firm, "My Schema", public', current_database());
  EXECUTE format('ALTER DATABASE %I SET statement_timeout = ''50s''', current_database());
  EXECUTE format('ALTER DATABASE %I SET "app.motto" = ''it''''s, quoted''', current_database());
  EXECUTE format('ALTER ROLE clerk IN DATABASE %I SET work_mem = ''9MB''', current_database());
  EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 66', current_database());
  EXECUTE format('ALTER DATABASE %I OWNER TO staff', current_database());
  EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CREATE ON DATABASE %I TO clerk', current_database());
  EXECUTE format('COMMENT ON DATABASE %I IS ''all of it''', current_database());
END $$`;

/** A department and its head need each other; each statement fires the audit trigger. */
const WRITES = [
  `WITH new AS (INSERT INTO firm.department VALUES (nextval('firm.live') + 1000, 'New ' || currval('firm.live'), currval('firm.live') + 1000, 1) RETURNING id, head)
   INSERT INTO firm.employee (id, department, salary) SELECT head, id, 2000 FROM new`,
  `UPDATE firm.employee SET salary = salary + 1, notes = repeat('live', 1000) WHERE id = 1 + floor(random() * 199)::int`,
  `INSERT INTO firm.review VALUES (nextval('firm.live') + 1000, 2020 + floor(random() * 10)::int, 1 + floor(random() * 199)::int, 1)`,
  `UPDATE firm.review SET year = 2044 - year + 5 WHERE id = 300 + floor(random() * 100)::int AND year BETWEEN 2020 AND 2029`,
  `DELETE FROM firm.department WHERE id > 1000 AND id = (SELECT min(id) FROM firm.department WHERE id > 1000)`,
  `UPDATE firm.packed SET code = code || 'x' WHERE id = 1 + floor(random() * 49)::int`,
];
