import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { projectRoot } from '../../lab/tools.ts';

interface Service {
  image?: string;
  build?: unknown;
  command?: string[];
  restart?: string;
  healthcheck?: unknown;
  environment?: Record<string, string>;
  depends_on?: Record<string, { condition: string }>;
  volumes?: string[];
  ports?: string[];
  networks?: string[];
}

interface Compose {
  services: Record<string, Service>;
  volumes: Record<string, unknown>;
  networks: Record<string, unknown>;
}

const file = (name: string): string => readFileSync(path.join(projectRoot, name), 'utf8');

/** What we use of dclint; its own types do not resolve under nodenext. */
interface Linter {
  lintFiles(paths: string[], recursive: boolean): { messages: { line: number; message: string }[] }[];
}

const require = createRequire(import.meta.url);
const { DCLinter } = require('dclint') as { DCLinter: new (config: object) => Linter };
/** The parser that dclint brings. */
const yaml = createRequire(require.resolve('dclint'))('yaml') as { parse(text: string): unknown };

const text = file('docker-compose.yml');
const compose = yaml.parse(text) as Compose;
const services = Object.entries(compose.services);

/** Ends when its work is done; others wait for that. */
const isOneShot = ([name]: [string, Service]): boolean =>
  services.some(([, other]) => other.depends_on?.[name]?.condition === 'service_completed_successfully');

const longRunning = services.filter((service) => !isOneShot(service));

/** A version of at least two numbers: 17.11-bookworm, 1.32.0; not 17, latest or a branch. */
const EXACT_TAG = /^[^:@\s]+:v?\d+\.\d+(\.\d+)?[\w.-]*$/;

describe('docker-compose.yml', () => {
  it('is valid by the schema of Compose and breaks no rule of the linter', () => {
    // Keys and services stand in the order in which a reader needs them, not in the alphabet's.
    const order = [
      'services-alphabetical-order',
      'service-keys-order',
      'top-level-properties-order',
      'service-dependencies-alphabetical-order',
    ];
    const rules = Object.fromEntries(order.map((rule) => [rule, 0]));
    const linter = new DCLinter({ rules, quiet: false, debug: false, exclude: [] });
    const [result] = linter.lintFiles([path.join(projectRoot, 'docker-compose.yml')], false);
    expect(result?.messages.map(({ line, message }) => `${line}: ${message}`)).toEqual([]);
  });

  it('has Temporal with its Web UI, a worker, and a PostgreSQL server on each side', () => {
    expect(Object.keys(compose.services)).toEqual(
      expect.arrayContaining([
        'temporal-db',
        'temporal',
        'temporal-ui',
        'temporal-namespace',
        'worker',
        'source',
        'target',
      ]),
    );
  });

  it('pins every image to an exact version', () => {
    const images = services.flatMap(([, { image }]) => (image === undefined ? [] : [image]));
    expect(images.length).toBeGreaterThan(5);
    expect(images.filter((image) => !EXACT_TAG.test(image))).toEqual([]);
  });

  it('uses one version of the Temporal server and of its tools, whose schema must match', () => {
    const tags = new Set(
      services.flatMap(([, { image }]) => /^temporalio\/(?:server|admin-tools):(.*)$/.exec(image ?? '')?.[1] ?? []),
    );
    expect(tags.size).toBe(1);
  });

  it('checks the health of every service that keeps running, and starts it again', () => {
    expect(longRunning.filter(([, { healthcheck }]) => healthcheck === undefined).map(([name]) => name)).toEqual([]);
    expect(longRunning.filter(([, { restart }]) => restart !== 'unless-stopped').map(([name]) => name)).toEqual([]);
  });

  it('starts the worker when the namespace, the search attributes and both servers are there', () => {
    expect(compose.services['worker']?.depends_on).toEqual({
      'temporal-namespace': { condition: 'service_completed_successfully' },
      source: { condition: 'service_healthy' },
      target: { condition: 'service_healthy' },
    });
  });

  it('registers all four search attributes', () => {
    const script = file('docker/temporal/namespace.sh');
    for (const name of ['PgCluster', 'PgDatabase', 'PgMigrationPhase', 'PgAttention'])
      expect(script).toContain(`--name ${name}`);
    expect(script).toContain('--type Keyword');
  });

  it('holds no password: each comes from a variable that must be set, and .env.example names it', () => {
    const example = file('.env.example');
    const secrets = services.flatMap(([, { environment }]) =>
      Object.entries(environment ?? {}).filter(
        ([name, value]) => /PASSWORD|PWD|KEY/.test(name) || /password|:\/\//.test(value),
      ),
    );
    expect(secrets.length).toBeGreaterThan(5);
    for (const [name, value] of secrets) {
      const variable = /\$\{(\w*PASSWORD):\?[^}]+\}/.exec(value)?.[1];
      expect(variable, name).toBeDefined();
      expect(example).toMatch(new RegExp(`^${variable}=.+$`, 'm'));
    }
    // Nor anywhere else: without its variables, innermost first, no line has a value left.
    const literals = text
      .replace(/\$\{[^{}]*\}/g, '')
      .replace(/\$\{[^{}]*\}/g, '')
      .split('\n')
      .filter((line) => /(PASSWORD|PWD|password)\s*[:=]\s*'?[^\s'#]/.test(line));
    expect(literals).toEqual([]);
  });

  it('lets both example servers decode their WAL', () => {
    for (const name of ['source', 'target']) expect(compose.services[name]?.command).toContain('wal_level=logical');
  });

  it('keeps data in named volumes and publishes nothing beyond this machine', () => {
    const mounts = services.flatMap(([, { volumes }]) => volumes ?? []).map((mount) => mount.split(':')[0] ?? '');
    const named = mounts.filter((source) => !source.startsWith('./'));
    expect(named.sort()).toEqual(Object.keys(compose.volumes).sort());
    const ports = services.flatMap(([, service]) => service.ports ?? []);
    expect(ports.filter((port) => !port.startsWith('127.0.0.1:'))).toEqual([]);
  });

  it('puts every service into a network that is declared', () => {
    const declared = Object.keys(compose.networks);
    for (const [name, { networks }] of services)
      expect(declared, name).toEqual(expect.arrayContaining(networks ?? ['none']));
  });
});

describe('Dockerfile', () => {
  const dockerfile = file('Dockerfile');

  it('builds on exact glibc images, since the native library of the Temporal SDK runs on no other', () => {
    const images = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map(([, image]) => image ?? '');
    expect(images.length).toBeGreaterThan(1);
    for (const image of images) expect(image).toMatch(/^node:\d+\.\d+\.\d+-bookworm-slim$/);
  });

  it('does not run as root, and has a health check', () => {
    expect(dockerfile.lastIndexOf('USER node')).toBeGreaterThan(dockerfile.lastIndexOf('FROM '));
    expect(dockerfile).toMatch(/^HEALTHCHECK /m);
  });

  it('has the client programs of every supported major', () => {
    for (const major of [14, 15, 16, 17, 18]) expect(dockerfile).toContain(`postgresql-client-${major}`);
  });

  it('leaves .env out of the image', () => {
    const ignored = file('.dockerignore')
      .split('\n')
      .filter((line) => !line.startsWith('#'));
    expect(ignored[0]).toBe('*');
    expect(ignored.filter((line) => line.includes('.env'))).toEqual([]);
  });

  it('gets everything that the build needs', () => {
    const kept = file('.dockerignore')
      .split('\n')
      .flatMap((line) => /^!(.*)$/.exec(line)?.[1] ?? []);
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.*) \S+$/gm)].flatMap(([, sources]) =>
      (sources ?? '').split(' '),
    );
    for (const source of copied) expect(kept).toContain(source.replace(/^\.\//, ''));
  });
});
