-- Something to move: two tables with a foreign key, identity columns, an index, and a materialized view.
CREATE DATABASE shop;
\connect shop

CREATE TABLE customer (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  email text NOT NULL UNIQUE,
  created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE "order" (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer_id bigint NOT NULL REFERENCES customer,
  total numeric(12, 2) NOT NULL,
  placed timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON "order" (customer_id);

INSERT INTO customer (name, email)
SELECT 'Customer ' || n, 'customer' || n || '@example.com' FROM generate_series(1, 10000) AS n;

INSERT INTO "order" (customer_id, total)
SELECT 1 + n % 10000, round((10 + n % 900)::numeric + 0.99, 2) FROM generate_series(1, 200000) AS n;

CREATE MATERIALIZED VIEW turnover AS
SELECT customer_id, count(*) AS orders, sum(total) AS total FROM "order" GROUP BY customer_id;

ANALYZE;
