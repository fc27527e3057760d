# Stage 1 builds the pages; stage 2 the wheel and everything it needs into a virtual environment; stage 3 has only that.
FROM node:22.21.1-bookworm-slim AS pages
WORKDIR /src
COPY web/board/package.json web/board/package-lock.json web/board/.npmrc web/board/
COPY web/graphiql/package.json web/graphiql/package-lock.json web/graphiql/.npmrc web/graphiql/
RUN npm ci --prefix web/board --ignore-scripts \
    && npm ci --prefix web/graphiql --ignore-scripts
COPY web web
COPY queries queries
COPY schema/schema.graphql schema/
RUN npm run --prefix web/board build \
    && npm run --prefix web/graphiql build

FROM python:3.13.9-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY schema schema
COPY server server
COPY --from=pages /src/server/static server/static
RUN python -m venv /opt/merlin-graphql \
    && /opt/merlin-graphql/bin/pip install --no-cache-dir --disable-pip-version-check \
        --constraint constraints.txt '.[amqp,jwt,tracing]'

FROM python:3.13.9-slim-bookworm
LABEL org.opencontainers.image.title="merlin-graphql" \
      org.opencontainers.image.description="A GraphQL API server in front of the database of LLNL's Merlin" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/merlin-graphql merlin
COPY --from=build /opt/merlin-graphql /opt/merlin-graphql
ENV PATH=/opt/merlin-graphql/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MERLIN_GRAPHQL_HOST=0.0.0.0 \
    MERLIN_GRAPHQL_PORT=8000
USER 10001
WORKDIR /var/lib/merlin-graphql
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"MERLIN_GRAPHQL_PORT\"]}/healthz', timeout=2)"]
ENTRYPOINT ["merlin-graphql"]
CMD ["serve"]
