# syntax=docker/dockerfile:1

# glibc, not musl: the Temporal SDK's native library needs it, so no alpine. Exact tags: a rebuild is the same image.
FROM node:22.23.2-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY scripts ./scripts
COPY src ./src
COPY activities ./activities
COPY workflows ./workflows
RUN node scripts/build.mjs && npm prune --omit=dev

FROM node:22.23.2-bookworm-slim
# pg_dump and pg_restore of every supported major: some sources can only be dumped by their own (docs/operations.md).
# From the PostgreSQL project's own repository, since Debian has 15 only. They share one libpq there; copied out of the
# official images, each would bring its own, and the two dozen libraries that it needs.
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates postgresql-common \
  && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y \
  && apt-get install -y --no-install-recommends \
    postgresql-client-14 postgresql-client-15 postgresql-client-16 postgresql-client-17 postgresql-client-18 \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /app
ENV NODE_ENV=production
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY package.json LICENSE ./
COPY bin ./bin
# The image's own unprivileged user; nothing in /app is writable for it.
USER node
# Asks Temporal whether this container polls both task queues. It costs a second of CPU, hence once a minute.
HEALTHCHECK --interval=60s --timeout=20s --start-period=90s --start-interval=5s --retries=3 \
  CMD ["node", "bin/pgtransit", "worker", "--check"]
ENTRYPOINT ["node", "bin/pgtransit"]
CMD ["worker"]
